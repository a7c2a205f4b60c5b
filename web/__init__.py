"""The people's front end: photos in, labels out, corrections back."""
