"""Music as frames of pitches: the piano roll, reading of MIDI and MusicXML, MIDI, sound and pictures of a roll."""
