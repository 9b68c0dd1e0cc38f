# Sets up what is missing, then runs every check; with arguments, pytest alone with these arguments.
. (Join-Path $PSScriptRoot "common.ps1")

Enter-Environment test
Push-Location $Root
Remove-Item Env:PYTHONSAFEPATH # the tests start programs of theirs that lie here
try {
    if ($args.Count -gt 0) {
        & $Py -m pytest @args
        exit $LASTEXITCODE
    }
    foreach ($check in @("ruff", "check", "."), @("ruff", "format", "--check", "."), @("mypy", "--platform", "linux"), @("mypy", "--platform", "win32", "--no-warn-unreachable", "--cache-dir", ".mypy_cache/win32", "core", "vcam"), @("mypy", "--platform", "darwin", "--no-warn-unreachable", "--cache-dir", ".mypy_cache/darwin", "core", "vcam"), @("pytest", "-m", "not slow and not browser and not fuzz", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--cov", "--cov-report=term"), @("coverage", "report", "--include=core/*", "--format=total", "--fail-under=95"), @("coverage", "report", "--include=vcam/*", "--format=total", "--fail-under=88"), @("pytest", "-m", "browser")) {
        & $Py -m @check
        if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
    }
}
finally { Pop-Location }
