"""What of a tensor is to be encoded: segments of rows, their changed rows and columns, dense or factored."""
