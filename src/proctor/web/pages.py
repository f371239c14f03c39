"""Placeholder of the first commit: the pages come next."""

from fastapi import APIRouter, FastAPI

router = APIRouter()


def mount_static(app: FastAPI) -> None:
    pass
