"""A schema that accepts exactly its keys, with values of exactly their types."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """The base of the schemas of params.yaml and of the project's JSON files."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
