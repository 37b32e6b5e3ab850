"""A headless Chromium that a test operates through its DevTools."""

from __future__ import annotations

import base64
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--hide-scrollbars",
]


def program() -> str | None:
    """The installed browser, if there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Tab:
    """An open page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=60)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of its promise."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript condition holds, for 30 s at most."""
        loop = f"for (let n = 0; n < 600 && !({condition}); n++) await new Promise(done => setTimeout(done, 50))"
        assert await self.evaluate(f"(async () => {{ {loop}; return Boolean({condition}) }})()"), condition

    async def press_enter(self) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")

    async def choose_files(self, selector: str, *files: Path) -> None:
        root = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(file) for file in files])

    async def screenshot(self) -> bytes:
        return base64.b64decode((await self.call("Page.captureScreenshot", captureBeyondViewport=True))["data"])


@asynccontextmanager
async def open_tab(profile: Path) -> AsyncIterator[Tab]:
    """An empty tab of a new browser, whose data are in the folder `profile`."""
    flags = [*FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium has no sandbox for root
    process = subprocess.Popen([str(program()), *flags, "about:blank"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        address = next(filter(None, (re.search(r"ws://([\w.:]+)/", line) for line in process.stderr)))[1]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json") as response:
                target = next(item for item in await response.json() if item["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "DOM", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                yield tab
    finally:
        process.kill()
        process.wait()
