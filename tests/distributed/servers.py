"""The PostgreSQL and the Redis of a run: started for it on loopback, or those that the environment names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, inspect

from scripts import guard
from tests.database_servers import AS_NOBODY, find_program, free_port, open_folder, postgres

# For servers that are there already; an empty database each.
DATABASE, REDIS = "DISTRIBUTED_DATABASE", "DISTRIBUTED_REDIS"
START_SECONDS = 20.0


@contextmanager
def database_url() -> Iterator[str]:
    """Give the URL of a PostgreSQL database, `postgresql://…`.

    :raises RuntimeError: if the one that the environment names is not empty
    """
    if given := os.environ.get(DATABASE):
        engine = create_engine(with_driver(given, "psycopg2"))
        tables = inspect(engine).get_table_names()
        engine.dispose()
        if tables:
            raise RuntimeError(f"{DATABASE} has to be an empty database; it holds {len(tables)} tables.")
        yield given
    else:
        with postgres() as port:
            yield f"postgresql://airflow@127.0.0.1:{port}/postgres"


def with_driver(url: str, driver: str) -> str:
    """Return the URL with the driver that is to be used."""
    return f"postgresql+{driver}://{url.partition('://')[2]}"


@contextmanager
def redis_url() -> Iterator[str]:
    """Give the URL of a Redis database.

    :raises FileNotFoundError: if none is given and Redis is not installed
    """
    if given := os.environ.get(REDIS):
        yield given
    else:
        with open_folder() as folder:
            yield from _run_redis(folder)


def _run_redis(folder: Path) -> Iterator[str]:
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "no"}
    server = [find_program("redis-server"), *(part for name, value in options.items() for part in (f"--{name}", value))]
    # Under the guard it ends with this process, however that ends.
    command = [sys.executable, guard.__file__, *AS_NOBODY, *map(str, server)]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = f"redis://127.0.0.1:{port}/0"
        _wait_for_redis(url)
        yield url
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(guard.GRACE_SECONDS + 10)


def _wait_for_redis(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
