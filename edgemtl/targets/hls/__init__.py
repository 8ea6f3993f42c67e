"""FPGAs: the layer of experts as HLS C++ with its emulator, and what a whole net becomes for the vendor's tools."""
