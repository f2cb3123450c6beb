"""The hypothesis profiles: the same examples each time in short, other ones each time in long."""

from hypothesis import HealthCheck, Phase, settings

from tests.fuzz.mutate import FIGURES, ROUNDS

settings.register_profile(
    "fuzz",
    deadline=None,
    database=None,
    derandomize=ROUNDS == 1,
    print_blob=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("fuzz")


def pytest_terminal_summary(terminalreporter) -> None:
    for kind, outcomes in FIGURES.items():
        parts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        terminalreporter.write_line(f"{kind}: {outcomes.total()} tried, {parts}")
