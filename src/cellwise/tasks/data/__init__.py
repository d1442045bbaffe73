"""What people have: files, columns, numbers and dates as they are written."""
