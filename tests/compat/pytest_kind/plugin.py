"""The one option of pytest-kind that the suite reads."""


def pytest_addoption(parser):
    parser.addoption("--keep-cluster", action="store_true", default=True)
