"""Declarations are read without running the file, and what is wrong with one is told in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from attnbench.bench.catalog import open_catalog
from attnbench.bench.declaration import Origin, read_declarations
from attnbench.bench.error import BadDeclaration, BadInput, UnknownName
from attnbench.models.variant import Variant

PLUGIN = Path(__file__).parent.parent / "plugins" / "sharper.py"


def written(folder: Path, text: str) -> Origin:
    path = folder / "mine.py"
    path.write_text(text)
    return Origin(str(path))


def test_a_stranger_is_read_and_built() -> None:
    import torch

    from attnbench.models.vit import VisionTransformerShape, build

    (declared,) = read_declarations(Origin(str(PLUGIN)))
    assert isinstance(declared.value, Variant)
    assert declared.value.settings == {"sharpness": 2.0}
    model = build(declared.value.core, declared.value.settings, VisionTransformerShape(dim=8, depth=1, heads=2), 0)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_reading_runs_nothing(tmp_path: Path) -> None:
    origin = written(
        tmp_path,
        "raise RuntimeError('run')\n"
        "class C: pass\n"
        "V = Variant(name='v', core=C, source='s', version=1, summary='', formula='', family='f',"
        " attention_map='signed')\n",
    )
    (declared,) = read_declarations(origin)
    assert declared.value.name == "v"
    with pytest.raises(BadDeclaration, match=r"mine\.py cannot be imported \(RuntimeError: run\); mend it or leave"):
        open_catalog([origin.path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("V = Variant(name='v' + x)", "the field `name` of Variant must be written in literals, not as `'v' + x`"),
        ("V = Variant('v')", "Variant takes its fields by name"),
        ("V = Variant(nam='v')", "Variant has no field `nam`; did you mean `name`?"),
        ("V = Variant(name='v')", "Variant lacks core, source, version, summary, formula, family, attention_map"),
        ("V = Variant(name=f(1))", "a declaration is written in literals, `f(...)` is none"),
        ("V = Variant(", "not valid Python"),
        (
            "class Uniform: ...\nV = Variant(core=Unifrom)",
            "no class or function `Unifrom` in this file; did you mean `Uniform`?",
        ),
        ("V = Variant(causal='maybe')", "the field `causal` of Variant is 'maybe'; allowed are 'yes', 'no', 'prefix'"),
    ],
)
def test_a_fault_names_the_place(tmp_path: Path, text: str, message: str) -> None:
    origin = written(tmp_path, text)
    with pytest.raises(BadDeclaration) as error:
        read_declarations(origin)
    assert message in str(error.value)
    assert origin.path in str(error.value)


def test_a_file_without_a_declaration_is_told_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(BadDeclaration, match="declares nothing; add a constant"):
        open_catalog([written(tmp_path, "x = 1\n").path])


def test_a_name_that_is_taken_names_both_owners(tmp_path: Path) -> None:
    path = tmp_path / "softmax.py"
    path.write_text(PLUGIN.read_text().replace('name="sharper"', 'name="softmax"'))
    with pytest.raises(BadDeclaration) as error:
        open_catalog([str(path)])
    assert "two variants are called 'softmax'" in str(error.value)
    assert str(path) in str(error.value)


def test_unknown_names_suggest() -> None:
    with pytest.raises(UnknownName, match=r"'eliptical'; did you mean 'elliptical'\? \(attnbench ls variants\)"):
        open_catalog().variant("eliptical")
    with pytest.raises(BadInput, match="MIFGSM"):
        open_catalog().shift("torchattacks:MIFGS")


def test_a_plugin_is_keyed_by_its_meaning(tmp_path: Path) -> None:
    helper = tmp_path / "helper.py"
    helper.write_text("FACTOR = 1\n")
    path = tmp_path / "mine.py"
    path.write_text("import helper\n" + PLUGIN.read_text())

    def tree() -> str:
        catalog = open_catalog()
        catalog.remember_file(str(path))
        return str(catalog.variant("sharper").identity["tree"])

    first = tree()
    path.write_text("# a comment\nimport helper\n" + PLUGIN.read_text())
    assert tree() == first
    helper.write_text("FACTOR = 2\n")
    assert tree() != first


def test_the_catalogue_is_complete_and_named_after_its_files() -> None:
    catalog = open_catalog()
    folder = Path(__file__).parent.parent.parent / "models" / "variants"
    assert catalog.names("variant") == sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
    shifts = {"clean", "fgsm", "pgd", "gaussian_noise", "defocus_blur", "contrast", "patch_outlier"}
    assert shifts <= set(catalog.names("shift"))
    assert {"accuracy", "token_cosine", "residual_ratio", "erank_unit"} <= set(catalog.names("metric"))


def test_every_declaration_can_be_called() -> None:
    catalog = open_catalog()
    functions = {"variant": "core", "shift": "apply", "metric": "measure", "task": "load", "recipe": "fit"}
    for kind, field in functions.items():
        for name in catalog.names(kind):
            assert callable(getattr(catalog.found[kind][name].value, field).resolved()), (kind, name)


def test_what_is_read_equals_what_is_imported() -> None:
    catalog = open_catalog()
    for name in catalog.names("variant"):
        declared = catalog.found["variant"][name]
        real = getattr(declared.origin.load(), name.upper())
        for field in Variant.__dataclass_fields__:
            if field != "core":
                ours, theirs = getattr(declared.value, field), getattr(real, field)
                assert (dict(ours) == dict(theirs)) if hasattr(theirs, "keys") else ours == theirs, (name, field)
        assert declared.value.core.resolved() is real.core


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "smoke"], ["ls", "variants"], ["status", "--help"]])
def test_planning_needs_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from attnbench.bench.cli.app import main\n"
        f"sys.argv = ['attnbench', *{arguments}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "loaded = {'torch', 'timm', 'torchattacks', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def speaking(folder: Path, name: str, sharpness: float) -> str:
    """Write a plugin that takes its sharpness from a neighbour of a common name."""
    folder.mkdir()
    (folder / "helper.py").write_text(f"SHARPNESS = {sharpness}\n")
    text = PLUGIN.read_text().replace('name="sharper"', f'name="{name}"')
    text = text.replace("scale = self.sharpness", "scale = SHARPNESS")
    (folder / f"{name}.py").write_text("from helper import SHARPNESS\n" + text)
    return str(folder / f"{name}.py")


def test_plugins_with_neighbours_of_one_name_keep_their_own(tmp_path: Path) -> None:
    import torch

    from attnbench.models.vit import VisionTransformerShape, build

    catalog = open_catalog([speaking(tmp_path / "a", "mild", 1.0), speaking(tmp_path / "b", "sharp", 8.0)])
    pixels = torch.rand(2, 1, 8, 8)
    logits = []
    for name in ("mild", "sharp", "softmax"):
        entry = catalog.variant(name)
        logits.append(build(entry.value.core, entry.settings, VisionTransformerShape(dim=8, heads=2), 0)(pixels))
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[1], logits[2])
    assert "helper" not in sys.modules


def test_an_installed_plugin_is_keyed_by_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "foreign_attention"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "factor.py").write_text("FACTOR = 1\n")
    (package / "sharp.py").write_text("from foreign_attention.factor import FACTOR\n" + PLUGIN.read_text())
    (tmp_path / "foreign-1.dist-info").mkdir()
    (tmp_path / "foreign-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1\n")
    points = "[attnbench.variants]\nsharper = foreign_attention.sharp\nlost = foreign_attention.nowhere\n"
    (tmp_path / "foreign-1.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    catalog = open_catalog()
    first = catalog.variant("sharper").identity
    assert "version" not in first
    assert [reason for reason in catalog.broken if "foreign_attention.nowhere" in reason]
    (package / "factor.py").write_text("FACTOR = 8\n")
    assert open_catalog().variant("sharper").identity["tree"] != first["tree"]
    assert open_catalog().variant("softmax").identity["version"] == 1
