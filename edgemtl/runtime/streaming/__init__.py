"""The runtime that streams weights from a file, for boards with little memory."""
