"""TaskVine's module of this name: its executor and tasks with futures, and what works on all futures."""

from concurrent.futures import ALL_COMPLETED as ALL_COMPLETED
from concurrent.futures import FIRST_COMPLETED as FIRST_COMPLETED
from concurrent.futures import FIRST_EXCEPTION as FIRST_EXCEPTION
from concurrent.futures import as_completed as as_completed
from concurrent.futures import wait as wait

from graphvine import FutureFunctionCall as FutureFunctionCall
from graphvine import FuturePythonTask as FuturePythonTask
from graphvine import FuturesExecutor as FuturesExecutor
from graphvine import VineFuture as VineFuture
