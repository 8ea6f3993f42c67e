"""Surface normals: a unit vector in the camera's frame for every pixel."""
