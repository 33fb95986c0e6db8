"""What watches a training and acts between its steps. A callback sees a task through a protocol only."""
