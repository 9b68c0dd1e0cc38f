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
    foreach ($check in @("ruff", "check", "."), @("ruff", "format", "--check", "."), @("mypy", "--platform", "linux"), @("mypy", "--config-file", "install_scripts/mypy-elsewhere.ini", "--platform", "win32", "--cache-dir", ".mypy_cache/win32"), @("mypy", "--config-file", "install_scripts/mypy-elsewhere.ini", "--platform", "darwin", "--cache-dir", ".mypy_cache/darwin"), @("pytest", "-m", "not slow and not browser and not fuzz", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--cov", "--cov-report=term"), @("coverage", "report", "--include=core/*", "--format=total", "--fail-under=95"), @("coverage", "report", "--include=vcam/*", "--format=total", "--fail-under=88"), @("pytest", "-m", "browser")) {
        & $Py -m @check
        if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
    }
}
finally { Pop-Location }
