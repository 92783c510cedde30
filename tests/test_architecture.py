"""The layers of the package: imports point downwards, torch stays in `fit`, nothing executes what it reads."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from checks import ROOT

PACKAGE = ROOT / "inrstore"
LAYERS = (
    {"errors", "limits", "options"},
    {"chunk"},
    {"codecs"},
    {"evaluate"},
    {"files"},
    {"sources"},
    {"store"},
    {"archive"},
    {"api"},
    {"views"},
    {"cli"},
)
"""Lowest first. A module imports from its own layer (one package) and from those below; in functions, too."""
MODULES = sorted(p.relative_to(ROOT) for p in PACKAGE.rglob("*.py"))
ENTRY = {"inrstore"}  # the public names, loaded when they are used
KNOWN_CIRCLE = ENTRY


def dotted(path: Path) -> str:
    """Return the name of a module of the package."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int | None:
    """Return the layer of a module, or None for the package itself."""
    inside = module.removeprefix("inrstore").lstrip(".")
    for number, members in enumerate(LAYERS):
        for member in members:
            if inside == member or inside.startswith(member + "."):
                return number
    return None


class Imports(ast.NodeVisitor):
    """Collects (module, lazy, for type checkers only) of every import."""

    def __init__(self, module: str, is_package: bool) -> None:
        self.package = module if is_package else module.rpartition(".")[0]
        self.found: list[tuple[str, bool, bool]] = []
        self.depth = 0
        self.typing = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_If(self, node: ast.If) -> None:
        guarded = ast.unparse(node.test).endswith("TYPE_CHECKING")
        self.typing |= guarded
        for child in node.body:
            self.visit(child)
        self.typing &= not guarded
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.found.append((alias.name, self.depth > 0, self.typing))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            name = (
                whole
                if (ROOT / Path(*whole.split("."))).with_suffix(".py").exists()
                or (ROOT / Path(*whole.split("."))).is_dir()
                else base
            )
            self.found.append((name, self.depth > 0, self.typing))


def imports(path: Path) -> list[tuple[str, bool, bool]]:
    """Return the imports of a module."""
    visitor = Imports(dotted(path), path.name == "__init__.py")
    visitor.visit(ast.parse((ROOT / path).read_text()))
    return visitor.found


def test_every_module_has_a_layer():
    for path in MODULES:
        name = dotted(path)
        assert name in ENTRY or layer(name) is not None, name
    seen = {layer(dotted(p)) for p in MODULES}
    assert seen >= set(range(len(LAYERS)))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_downwards(path):
    own = dotted(path)
    for name, lazy, typing in imports(path):
        if not name.startswith("inrstore"):
            continue
        if own in ENTRY:
            assert lazy or typing, f"{own} imports {name} eagerly"
            continue
        if name == "inrstore":  # its version
            assert lazy, f"{own} imports the package eagerly"
            continue
        if typing:
            continue
        there, here = layer(name), layer(own)
        assert there is not None and here is not None, (own, name)
        same = own.split(".")[1] == name.split(".")[1]
        assert there < here or (there == here and same) or here == 0 == there, f"{own} imports {name}"


def test_no_module_needs_itself():
    """Circles among modules; imports inside functions and for type checkers count."""
    graph = {dotted(path): {name for name, _, _ in imports(path)} for path in MODULES}
    for own in graph:
        seen: set[str] = set()
        ahead = set(graph[own])
        while ahead:
            seen |= ahead
            ahead = {there for name in ahead for there in graph.get(name, ())} - seen
        assert own not in seen or own in KNOWN_CIRCLE, f"{own} imports itself by way of others"


FIT = "inrstore.chunk.inr.fit"


def test_fitting_is_imported_lazily_by_encoders():
    for path in MODULES:
        own = dotted(path)
        for name, lazy, typing in imports(path):
            if name.startswith(FIT) and not own.startswith(FIT) and not typing:
                assert own.startswith("inrstore.chunk.") and lazy, f"{own} imports {name}"


HEAVY = {"torch": FIT, "nibabel": "inrstore.sources", "xarray": "inrstore.views", "typer": "inrstore.cli",
         "rich": "inrstore.cli", "matplotlib": "inrstore.evaluate.picture", "obstore": "inrstore.files.remote",
         "distributed": "inrstore.archive.cluster", "jinja2": "inrstore.archive.report",
         "dcm2niix": "inrstore.sources.dicom", "fsspec": "inrstore.views.fsspec",
         "mfusepy": "inrstore.views.mount", "aiohttp": "inrstore.views.serve"}  # fmt: skip
PLUGINS = {"inrstore.views.engine": "xarray", "inrstore.views.fsspec": "fsspec"}
"""Modules that only the package they are a plug-in of imports."""


def graph(*, lazy: bool) -> dict[str, set[str]]:
    """Return which modules of the package each one imports: those at its top, or those inside functions, too."""
    known = {dotted(path) for path in MODULES}
    out = {}
    for path in MODULES:
        found = {name for name, late, typing in imports(path) if (lazy or not late) and not typing}
        out[dotted(path)] = (found & known) - {dotted(path)}
    return out


def circle_in(edges: dict[str, set[str]]) -> list[str]:
    """Return the modules of a circle, or nothing."""
    done: set[str] = set()

    def search(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return trail[trail.index(name) :]
        if name not in done:
            for other in sorted(edges[name]):
                found = search(other, [*trail, name])
                if found:
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := search(name, []))), [])


def test_no_chunk_module_imports_itself_by_way_of_others():
    edges = {a: {b for b in bs if b.startswith("inrstore.chunk")}
             for a, bs in graph(lazy=True).items() if a.startswith("inrstore.chunk")}  # fmt: skip
    assert circle_in(edges) == []
    edges["inrstore.chunk.frame"] = {"inrstore.chunk.decode"}
    assert set(circle_in(edges)) >= {"inrstore.chunk.frame", "inrstore.chunk.decode"}  # one would be found


def test_reading_imports_no_encoder():
    edges, seen, todo = graph(lazy=False), set(), ["inrstore.chunk.decode"]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges[name]
    encoders = {name for name in edges if name.startswith("inrstore.chunk.") and "encode" in name}
    encoders |= {f"inrstore.chunk.{name}" for name in ("least_squares", "transform.rdoq", "transform.weights",
                                                       "neural.scale", "fit_task")}  # fmt: skip
    assert encoders <= edges.keys() and len(encoders) >= 12
    assert not seen & encoders
    assert not any(name.startswith(FIT) for name in seen)


def test_optional_packages_stay_where_they_are_needed():
    for path in MODULES:
        own = dotted(path)
        for name, lazy, typing in imports(path):
            package = name.split(".")[0]
            if package not in HEAVY or typing or PLUGINS.get(own) == package:
                continue
            if package == "torch":
                assert own.startswith(FIT), f"{own} imports torch"
            elif package in ("nibabel", "xarray", "matplotlib", "dcm2niix", "jinja2", "mfusepy", "fsspec", "aiohttp"):
                assert lazy, f"{own} imports {package} eagerly"
            else:
                assert lazy or own.startswith(HEAVY[package]), f"{own} imports {package} eagerly"


def test_no_module_imports_a_plug_in():
    for path in MODULES:
        for name, _, _ in imports(path):
            assert name not in PLUGINS, f"{path} imports {name}"


KERNELS = "inrstore.chunk.kernels"


def test_compiled_loops_are_loaded_by_name_alone():
    """So nothing imports the compiler; `choice` loads a module of loops when it pays."""
    for path in MODULES:
        own = dotted(path)
        for name, lazy, typing in imports(path):
            if name.split(".")[0] == "numba":
                assert own == f"{KERNELS}.jit" and not lazy, f"{own} imports numba"
            if name.startswith(f"{KERNELS}.") and name != f"{KERNELS}.choice" and not typing:
                assert own.startswith(KERNELS) and own != f"{KERNELS}.choice", f"{own} imports {name}"


def test_chunks_need_numpy_and_a_checksum_alone():
    import sys

    known = {"numpy", "google_crc32c", "inrstore", *sys.stdlib_module_names}
    for path in MODULES:
        if dotted(path).startswith("inrstore.chunk") and not dotted(path).startswith(FIT):
            for name, lazy, typing in imports(path):
                if dotted(path) == "inrstore.chunk.av1.library" and name == "av" and lazy:
                    continue  # decoders of AV1 are C: loaded when a chunk is coded so
                if dotted(path) == f"{KERNELS}.jit" and name == "numba":
                    continue
                assert name.split(".")[0] in known or typing, f"{path} imports {name}"


def test_nothing_executes_what_it_reads():
    for path in MODULES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                for name in names:
                    assert name.split(".")[0] not in {
                        "pickle",
                        "cPickle",
                        "dill",
                        "marshal",
                        "shelve",
                        "cloudpickle",
                    }, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "compile", "os.system", "torch.load", "os.popen", "__import__"}, (
                    path
                )
                for keyword in node.keywords:
                    value = ast.unparse(keyword.value)
                    assert (keyword.arg, value) not in {("shell", "True"), ("allow_pickle", "True")}, path
