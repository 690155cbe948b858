"""Find faces in photographs and align them, with dlib's openly licensed models."""
