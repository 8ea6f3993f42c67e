"""A user's own data set: images in folders, labels in files and tables, a YAML file that describes them."""

from edgemtl.data.folder.check import CheckReport, check_folder
from edgemtl.data.folder.models import folder_kinds
from edgemtl.data.folder.source import FolderSource

__all__ = ["CheckReport", "FolderSource", "check_folder", "folder_kinds"]
