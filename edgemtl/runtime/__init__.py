"""Run a bundle or an engine on this machine: any subset of its tasks, without torch."""

from edgemtl.runtime._open import open_engine, runtime_names
from edgemtl.runtime._session import EngineSpec, OperatorTime, Session, block_of

__all__ = ["EngineSpec", "OperatorTime", "Session", "block_of", "open_engine", "runtime_names"]
