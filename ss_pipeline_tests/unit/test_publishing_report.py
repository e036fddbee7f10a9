"""What stands in a report: sections, numbers, plots, languages, the model as a formula and as code."""

import ast
import json
import re
from typing import Any

import pytest

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import DataSample, JobProfile
from ss_pipeline.stages.publishing.analysis import METHODS, analysis_of, formula_text
from ss_pipeline.stages.publishing.code_python import python_code
from ss_pipeline.stages.publishing.code_r import r_code
from ss_pipeline.stages.publishing.code_stata import stata_code
from ss_pipeline.stages.publishing.formats import moment, number, share, shortened
from ss_pipeline.stages.publishing.grouping import groups_by
from ss_pipeline.stages.publishing.plots import overview_png
from ss_pipeline.stages.publishing.stage import prepare_publication
from ss_pipeline.stages.publishing.wording import WORDS, language_of
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.publishing_builders import (
    a_column,
    a_decided_job,
    a_draft,
    a_profile,
    a_sample,
    chinese_case,
    english_case,
    wage_cells,
)

SECTIONS = ["asked", "proposed", "know", "questions", "variables", "plots", "dictionary", "reproduce", "provenance"]


def reported(job: Job, profile: JobProfile, sample: DataSample | None) -> tuple[str, str]:
    """report.html and report.md of the job."""
    artifacts = ArtifactStore("memory://reports")
    fence = len(artifacts.names(job.tenant_id, job.job_id, "publications")) + 1
    made = prepare_publication(
        job, profile=profile, sample=sample, artifacts=artifacts, fence=fence, clock=StandingClock()
    )
    html, markdown = (
        artifacts.read(job.tenant_id, job.job_id, f"{made.folder}/{name}").decode()
        for name in ("report.html", "report.md")
    )
    return html, markdown


def plots_of(draft: dict[str, Any], *, cells: dict[str, Any] | None = None, sample: bool = True) -> dict[str, str]:
    """Key → figure of each plot in the report of this draft on the wage data."""
    rows = cells or wage_cells()
    html, _ = reported(a_decided_job(a_draft(**draft)), a_profile(rows), a_sample(rows) if sample else None)
    return dict(re.findall(r'<figure class="card" id="figure-(\w+)">(.*?)</figure>', html, re.DOTALL))


@pytest.mark.parametrize("case", [english_case, chinese_case], ids=["english", "chinese"])
def test_a_report_has_every_section_and_a_way_to_each(case: Any) -> None:
    html, markdown = reported(*case())
    words = WORDS[language_of(case()[0])]
    for section in SECTIONS:
        assert f'<section id="{section}">' in html
        assert f'href="#{section}"' in html
        assert f">{words[section]}</h2>" in html
        assert section == "plots" or f"## {words[section]}" in markdown


def test_a_report_in_english_says_what_was_asked_proposed_and_found() -> None:
    html, markdown = reported(*english_case())
    assert '<html lang="en">' in html
    assert "<title>Years of education and hourly wage in dollars</title>" in html
    for text in (html, markdown):
        for expected in (
            "Does education raise wages?",
            "exper is missing in 11 % of the rows.",
            "dana",
            "Looks right.",
        ):
            assert expected in text
    assert "log(wage) ~ educ + exper + female + region" in re.sub(r"<[^>]*>", "", html)


def test_a_report_in_chinese_is_chinese_to_its_plots() -> None:
    html, markdown = reported(*chinese_case())
    assert '<html lang="zh-CN">' in html
    assert "受教育年限与小时工资的关系" in html
    assert re.search(r"<svg[^>]*>.*?<text[^>]*>小时工资</text>", html, re.DOTALL)
    assert "# 受教育年限与小时工资的关系" in markdown


@pytest.mark.parametrize(
    ("requirement", "language", "expected"),
    [
        ("Does education raise wages?", None, "en"),
        ("受教育程度是否提高工资？", None, "zh"),
        ("请用 wage 对 educ 做 OLS 回归", None, "zh"),
        ("Regress 工资 on education and experience", None, "en"),
        ("受教育程度是否提高工资？", "en", "en"),
        ("Does education raise wages?", "zh-Hant-TW", "zh"),
        ("Augmente-t-elle le salaire ?", "fr", "en"),
    ],
)
def test_the_report_speaks_as_the_job_says_or_the_requirement(
    requirement: str, language: str | None, expected: str
) -> None:
    assert language_of(a_job(requirement=requirement, language=language)) == expected


def test_a_requirement_in_a_third_language_is_marked_as_such() -> None:
    job, profile, sample = english_case()
    html, _ = reported(job.changed(language="fr"), profile, sample)
    assert '<html lang="en">' in html
    assert '<blockquote lang="fr"' in html


@pytest.mark.guarantee("L4")
def test_a_report_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    html, _ = reported(*english_case())
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in html
    for forbidden in ("<script", "<link", "<iframe", "@import", "url(h", "http://", "https://"):
        assert forbidden not in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_both_languages_have_every_word() -> None:
    assert {key for key, word in WORDS["zh"].items() if not word} == set()
    for key, english in WORDS["en"].items():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", WORDS["zh"][key])), key


@pytest.mark.parametrize(
    ("draft", "expected", "shown"),
    [
        ({}, {"outcome", "relation", "missing"}, "the line joins means within groups of educ"),
        ({"treatment_var": "region", "controls": []}, {"outcome", "relation", "missing"}, "middle half"),
        ({"treatment_var": "hired", "controls": []}, {"outcome", "relation", "missing"}, ">2010<"),
        ({"outcome_var": "female", "controls": []}, {"outcome", "relation", "missing"}, "Share with female = True"),
        ({"outcome_var": "region", "controls": []}, {"outcome", "relation", "missing"}, "Share with region = north"),
        ({"treatment_var": None}, {"outcome", "missing"}, "Distribution of wage"),
        ({"outcome_var": None, "treatment_var": None}, {"missing"}, "exper"),
    ],
    ids=["scatter", "boxes", "dates", "shares by bin", "shares by level", "no treatment", "no outcome"],
)
def test_the_plots_fit_the_variables(draft: dict[str, Any], expected: set[str], shown: str) -> None:
    plots = plots_of(draft)
    assert set(plots) == expected
    assert shown in " ".join(plots.values())
    assert all("<title" in plot and 'role="img"' in plot for plot in plots.values())


def test_coded_levels_stand_in_the_order_of_their_codes_under_their_labels() -> None:
    school = a_column("school", [3, 1, 1, 2, 3, 3]).model_copy(
        update={"value_labels": {"1": "low", "2": "mid", "3": "top"}}
    )
    groups = groups_by([3, 1, 1, 2, 3, 3], [1.0] * 6, school)
    assert [(group.name, len(group.values)) for group in groups] == [("low", 2), ("mid", 1), ("top", 3)]


def test_text_levels_stand_in_the_order_of_their_size() -> None:
    cells: list[Any] = ["b", "a", "b", None, "c", "b", "c"]
    assert [group.name for group in groups_by(cells, [1.0] * 7, a_column("x", cells))] == ["b", "c", "a"]


def test_without_a_sample_only_what_the_profile_knows_is_drawn() -> None:
    assert set(plots_of({}, sample=False)) == {"outcome", "missing"}


def test_complete_data_is_said_to_be_complete_instead_of_drawn() -> None:
    cells = {name: column for name, column in wage_cells().items() if None not in column}
    draft = {"controls": ["female"], "open_unknowns": [], "data_quality_warnings": []}
    assert "missing" not in plots_of(draft, cells=cells)
    html, markdown = reported(a_decided_job(a_draft(**draft)), a_profile(cells), None)
    for text in (html, markdown):
        assert WORDS["en"]["nothing_missing"] in text
        assert WORDS["en"]["no_warnings"] in text
        assert WORDS["en"]["nothing_open"] in text


@pytest.mark.parametrize("cells", [[3.0] * 20, [None] * 20, [1.0, None] * 10], ids=["constant", "empty", "one value"])
def test_columns_with_nothing_to_see_are_reported_all_the_same(cells: list[float | None]) -> None:
    rows: dict[str, Any] = {"wage": [float(i) for i in range(20)], "educ": cells}
    html, _ = reported(a_decided_job(a_draft(controls=[])), a_profile(rows), a_sample(rows))
    assert "<bdi>educ</bdi>" in html


def test_plots_use_the_colours_of_the_page_and_keep_their_ids_apart() -> None:
    html, _ = reported(*english_case())
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert not re.search(r"#0a0a0\d|@T\d+@", html)
    assert "var(--outcome)" in html


def test_at_most_300_columns_are_shown_and_the_rest_is_announced() -> None:
    cells: dict[str, Any] = {"wage": [1.0, 2.0], "educ": [1.0, 3.0]} | {f"x{i}": [1.0, 2.0] for i in range(400)}
    html, _ = reported(a_decided_job(a_draft(controls=[])), a_profile(cells), None)
    assert "<bdi>x297</bdi>" in html
    assert "<bdi>x298</bdi>" not in html
    assert "300 of 402 columns are shown" in html


def test_only_the_columns_of_the_analysis_are_in_the_table_of_variables() -> None:
    html, _ = reported(*english_case())
    variables = html.split('<section id="variables">')[1].split("</section>")[0]
    assert re.findall(r"<bdi>([^<]*)</bdi>", variables) == ["wage", "educ", "exper", "female", "region"]


def test_the_overview_is_a_png_whatever_the_columns_are_called() -> None:
    for _, profile, sample in (english_case(), chinese_case()):
        assert overview_png(profile, sample).startswith(b"\x89PNG")
        assert overview_png(profile, None) == overview_png(profile, None)


ODD = {"educ": "é`d\"u'c\\ $x", "wage": "wage\nper hour", "exper": "日元 (¥)"}


def odd_analysis(**fields: Any) -> Any:
    cells = {ODD.get(name, name): column for name, column in wage_cells().items()}
    draft = a_draft(outcome_var=ODD["wage"], treatment_var=ODD["educ"], controls=[ODD["exper"], "region"], **fields)
    return analysis_of(draft, a_profile(cells, original_name="a'b\"c`d$e.csv", delimiter="\t"))


@pytest.mark.parametrize("method", METHODS)
def test_the_python_code_is_valid_whatever_the_columns_are_called(method: str) -> None:
    fields: dict[str, Any] = {
        "entity_var": "region",
        "time_var": "hired",
        "interaction_terms": [f"{ODD['educ']}#female"],
    }
    for analysis in (odd_analysis(method=method), odd_analysis(method=method, instrument_var="female", **fields)):
        tree = ast.parse(python_code(analysis))
        used = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert ODD["wage"] in used
        formulas = [value for value in used if isinstance(value, str) and " ~ " in value]
        for side in (part for formula in formulas for part in formula.split(" ~ ")):
            ast.parse(side.replace("):", ") @ "), mode="eval")


@pytest.mark.parametrize("method", METHODS)
def test_names_cannot_leave_their_quotes_in_r_and_stata(method: str) -> None:
    analysis = odd_analysis(method=method, instrument_var="female", time_var="hired", cluster_var="region")
    r, stata = r_code(analysis), stata_code(analysis)
    outside = re.sub(r"`(\\.|[^`\\])*`|\"(\\.|[^\"\\])*\"", "", r)
    assert not re.search(r"[$¥日'\"`\\]", outside)
    assert not re.search(r"[$¥日\"\\]", re.sub(r'delimiters\("\\t"\)|"data"|"日元 \(¥\)"', "", stata))
    assert all(len(word) <= 32 for word in re.findall(r"[A-Za-z_]\w*", stata))


@pytest.mark.parametrize(
    ("fields", "formula", "python", "r", "stata"),
    [
        (
            {"method": "ols", "cluster_var": "region", "controls": ["exper"]},
            "wage ~ educ + exper",
            "smf.ols('wage ~ educ + exper', data=used).fit(cov_type='cluster'",
            "fixest::feols(wage ~ educ + exper, data = df, cluster = ~region)",
            "regress wage educ exper, vce(cluster region_id)",
        ),
        (
            {"method": "panel_fe", "entity_var": "region", "controls": []},
            "wage ~ educ | region",
            "smf.ols('wage ~ educ + C(region)'",
            "fixest::feols(wage ~ educ | region",
            "reghdfe wage educ, absorb(region_id) vce(robust)",
        ),
        (
            {"method": "iv_2sls", "instrument_var": "exper", "controls": ["female"]},
            "wage ~ (educ ← exper) + female",
            "dmatrix('exper + female'",
            "fixest::feols(wage ~ female | educ ~ exper",
            "ivregress 2sls wage i.female_id (educ = exper), vce(robust)",
        ),
        (
            {"method": "logit", "outcome_var": "female", "controls": []},
            "female ~ educ",
            "smf.logit('female ~ educ'",
            "fixest::feglm(female ~ educ, data = df, family = binomial",
            "replace female_id = female_id - 1\nlogit female_id educ, vce(robust)",
        ),
        (
            {"method": "survival", "outcome_var": "female", "time_var": "exper", "controls": []},
            "Surv(exper, female) ~ educ",
            "smf.phreg('exper ~ educ', data=used, status=used['female']",
            "survival::coxph(survival::Surv(exper, female) ~ educ",
            "stset exper, failure(female_id)\nstcox educ",
        ),
        (
            {"method": "descriptive", "treatment_var": "region", "controls": []},
            "wage ~ region",
            "used.groupby('region')['wage'].describe()",
            'tapply(df[["wage"]], df[["region"]], summary)',
            "tabstat wage, by(region) statistics(",
        ),
    ],
    ids=["clustered", "fixed effects", "instrument", "logit of text", "survival", "descriptive"],
)
def test_the_model_is_written_in_four_notations(
    fields: dict[str, Any], formula: str, python: str, r: str, stata: str
) -> None:
    analysis = analysis_of(a_draft(**fields), a_profile(wage_cells()))
    assert formula_text(analysis) == formula
    assert python in python_code(analysis)
    assert r in r_code(analysis)
    assert stata in stata_code(analysis)


@pytest.mark.parametrize(
    ("fields", "python", "r", "stata"),
    [
        (
            {"delimiter": ";", "encoding": "gb18030", "decimal": ",", "header_line": 3},
            "pd.read_csv('wages.csv', sep=';', encoding='gb18030', decimal=',', skiprows=2)",
            'read.csv("wages.csv", sep = ";", dec = ",", fileEncoding = "gb18030", skip = 2, check.names = FALSE)',
            'rowrange(4:) delimiters(";") encoding("gb18030") decimalseparator(",")',
        ),
        (
            {"format": "excel", "sheet": "Data", "delimiter": None},
            "pd.read_excel('wages.csv', sheet_name='Data')",
            'readxl::read_excel("wages.csv", sheet = "Data")',
            'import excel "wages.csv", clear cellrange(A2) sheet("Data")\nrename (A B C D E) (wage',
        ),
        (
            {"format": "dta", "delimiter": None},
            "pd.read_stata('wages.csv', convert_categoricals=False)",
            'haven::read_dta("wages.csv")',
            'use "wages.csv", clear',
        ),
        (
            {"format": "sav", "delimiter": None},
            "pd.read_spss('wages.csv', convert_categoricals=False)",
            'haven::read_sav("wages.csv")',
            'import spss using "wages.csv", clear',
        ),
    ],
    ids=["csv", "excel", "stata", "spss"],
)
def test_the_code_reads_the_file_as_the_profile_did(fields: dict[str, Any], python: str, r: str, stata: str) -> None:
    analysis = analysis_of(a_draft(), a_profile(wage_cells(), **fields))
    assert python in python_code(analysis)
    assert r in r_code(analysis)
    assert stata in stata_code(analysis)


def test_columns_renamed_on_reading_are_renamed_in_the_code_by_their_place() -> None:
    profile = json.loads(a_profile(wage_cells()).model_dump_json())
    profile["datasets"][0]["columns"][1]["original_name"] = " educ "
    analysis = analysis_of(a_draft(), JobProfile.model_validate(profile))
    assert "df = df.rename(columns={df.columns[1]: 'educ'})" in python_code(analysis)
    assert 'names(df)[2] <- "educ"' in r_code(analysis)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (float("nan"), "–"), (float("inf"), "–"), (0.0, "0"), (8.0, "8"), (1990.0, "1990"),
        (12_345.0, "12,345"), (12_345.678, "12,346"), (1_234.56, "1234.6"), (0.000_012_3, "1.230e-05"),
        (3.141_59, "3.142"), (-2.5, "-2.5"), (1e20, "1.000e+20"), ("2020-01-01", "2020-01-01"),
    ],
)  # fmt: skip
def test_numbers_are_written_with_four_significant_digits(value: float | str | None, text: str) -> None:
    assert number(value) == text


def test_shares_times_and_names_are_written_for_people() -> None:
    assert [share(0, 9), share(1, 9), share(1, 100_000), share(99_999, 100_000), share(9, 9), share(1, 0)] == [
        "0 %", "11.1 %", "< 0.1 %", "> 99.9 %", "100 %", "–",
    ]  # fmt: skip
    assert moment("2026-01-06T14:00:00+02:00") == "2026-01-06 12:00 UTC"
    assert [moment(None), moment("2026-01-06"), moment("soon")] == ["–", "2026-01-06 00:00", "soon"]
    assert shortened("受教育年限的平方", width=9) == "受教育年…"
