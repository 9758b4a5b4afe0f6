"""Sources of frames: video files, still images and cameras."""
