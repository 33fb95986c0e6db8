// Runs in the browser's audio thread: passes the samples of the first channel on, in blocks.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(2048);
    this.filled = 0;
  }

  process([[samples]]) {
    if (samples) {
      for (const sample of samples) {
        this.block[this.filled++] = sample;
        if (this.filled === this.block.length) {
          this.port.postMessage(this.block.slice());
          this.filled = 0;
        }
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
