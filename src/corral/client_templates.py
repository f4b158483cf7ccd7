"""The typed client's calls for templates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t


LIVE_FORK_S: Final = 1800.0


class TemplateCalls:
    """What `Client` can do with templates."""

    project: str
    _transport: Transport

    def published_templates(self) -> list[t.PublishedTemplate]:
        """Other projects', published to this one."""
        query = {"project": self.project}
        content = self._transport.request("GET", "/v1/published-templates", query=query)
        return cast("list[t.PublishedTemplate]", json.loads(content)["items"])

    def get_template(self, name: str) -> t.Template:
        return cast("t.Template", self._template("GET", f"/{path_name(name)}"))

    def create_template(self, body: t.CreateTemplateRequest) -> t.TemplateAccepted:
        return cast("t.TemplateAccepted", self._template("POST", "", body))

    def fork_template(self, name: str, body: t.ForkRequest) -> t.ClonesAccepted:
        return cast("t.ClonesAccepted", self._template("POST", f"/{path_name(name)}/forks", body))

    def fork_vm(self, name: str, body: t.LiveForkRequest) -> t.LiveForksAccepted:
        """Answers when all of the VM's memory was kept."""
        path, query = f"/v1/vms/{path_name(name)}/forks", {"project": self.project}
        return cast(
            "t.LiveForksAccepted",
            json.loads(self._transport.request("POST", path, query=query, body=body, timeout_s=LIVE_FORK_S)),
        )

    def refresh_template(self, name: str, body: t.RefreshTemplateRequest) -> t.OperationAccepted:
        return cast("t.OperationAccepted", self._template("POST", f"/{path_name(name)}/actions/refresh", body))

    def publish_template(self, name: str, project: str) -> t.Template:
        return cast("t.Template", self._template("POST", f"/{path_name(name)}/publications", {"project": project}))

    def unpublish_template(self, name: str, project: str) -> t.Template:
        path = f"/{path_name(name)}/publications/{path_name(project)}"
        return cast("t.Template", self._template("DELETE", path))

    def set_warm(self, name: str, count: int) -> t.Template:
        return cast("t.Template", self._template("PUT", f"/{path_name(name)}/warm", {"count": count}))

    def delete_template(self, name: str) -> t.OperationAccepted:
        return cast("t.OperationAccepted", self._template("DELETE", f"/{path_name(name)}"))

    def _template(self, method: str, path: str, body: object = None) -> Any:
        content = self._transport.request(method, f"/v1/templates{path}", query={"project": self.project}, body=body)
        return json.loads(content)
