"""A schema that takes exactly its keys, with values of exactly their types."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """What params.yaml and the project's JSON files are checked with."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
