"""dask's own contract for schedulers."""

from __future__ import annotations

from typing import Any

import pytest
from dask.utils_test import GetFunctionTestMixin

from graphvine.dask_adapter.client import DaskClient


class TestContract(GetFunctionTestMixin):
    @pytest.fixture(autouse=True)
    def _on(self, client: DaskClient) -> None:
        self._client = client

    def get(self, dsk: Any, keys: Any, **options: Any) -> Any:
        return self._client.get(dsk, keys, **options)
