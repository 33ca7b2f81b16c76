"""The sandbox for the tests of the operators."""

from __future__ import annotations

from tests import support

running_sandbox, sandbox = support.running_sandbox, support.sandbox
running_slow_sandbox, slow_sandbox = support.running_slow_sandbox, support.slow_sandbox
connect, logs = support.connect, support.logs
