"""For other people's training loops: files to be copied, which are given a PathRecorder and a PredictionTable."""
