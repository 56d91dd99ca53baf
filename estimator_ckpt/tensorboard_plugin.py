"""The tab "Checkpoints" of TensorBoard: the views of a page for every run with checkpoints.

TensorBoard finds it by the entry point `tensorboard_plugins`; it comes with the extra
`tensorboard`. It reads files alone, and needs no TensorFlow. A request names a run and a checkpoint
of those that were listed, never a path. Sources: tensorboard/plugins/base_plugin.py,
tensorboard/backend/http_util.py, tensorboard/data/server_ingester.py of TensorBoard 2.15.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from estimator_ckpt.errors import CheckpointError, printable
from estimator_ckpt.pages.document import tab_module
from estimator_ckpt.pages.runs import Runs, UnknownRunError

_NO_SNIFF = [("X-Content-Type-Options", "nosniff")]


@wrappers.Request.application
def _module(request: wrappers.Request) -> Any:
    return http_util.Respond(request, tab_module(), "text/javascript", headers=list(_NO_SNIFF))


class CheckpointsPlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """The plugin; one for each TensorBoard.

    Args:
      context: TensorBoard's TBContext, of which the logdir counts: one path, or several as
        `--logdir_spec` has them.
    """

    plugin_name = "checkpoints"

    def __init__(self, context: base_plugin.TBContext) -> None:
        spec = context.flags.logdir_spec if context.flags else ""  # core_plugin.py has it so
        self._runs = Runs(context.logdir or "", spec or "")

    def get_plugin_apps(self) -> Mapping[str, Any]:
        """What the tab asks for, by the end of its URL."""
        return {
            "/tab.js": _module,
            "/runs": self._answer(lambda query: self._runs.listed()),
            "/contents": self._answer(
                lambda query: self._runs.contents(query["run"], query["checkpoint"])
            ),
            "/job": self._answer(lambda query: self._runs.job(query["run"])),
            "/values": self._answer(
                lambda query: self._runs.values(query["run"], query["checkpoint"])
            ),
            "/changes": self._answer(
                lambda query: self._runs.changes(
                    (query["before_run"], query["before"]), (query["run"], query["checkpoint"])
                )
            ),
        }

    def is_active(self) -> bool:
        """Whether a run has checkpoints, as far as is known: the logdir is walked beside this."""
        return self._runs.found_any

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The name of the tab, and its module."""
        return base_plugin.FrontendMetadata(es_module_path="/tab.js", tab_name="Checkpoints")

    def _answer(self, ask: Any) -> Any:
        """An application that answers with what `ask` makes of the query, as JSON."""

        @wrappers.Request.application
        def application(request: wrappers.Request) -> Any:
            try:
                code, found = 200, ask(request.args)
            except UnknownRunError as error:
                code, found = 404, {"error": f"no such run or checkpoint: {error}"}
            except KeyError as error:
                code, found = 404, {"error": f"the request names no {error.args[0]}"}
            except CheckpointError as error:
                code, found = 500, {"error": str(error)}
            except OSError as error:
                code, found = 500, {"error": printable(str(error))}
            text = json.dumps(found, allow_nan=False)
            return http_util.Respond(
                request, text, "application/json", code=code, headers=list(_NO_SNIFF)
            )

        return application
