"""Files in, batches out: a resumable stream, tables, and a package for images."""
