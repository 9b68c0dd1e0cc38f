# Dot-sourced by run.ps1 and test.ps1: the Windows twin of common.sh. Sets $Root and $Py; Enter-Environment makes them ready.

$ErrorActionPreference = "Stop"
$Root = Split-Path -Parent $PSScriptRoot
$Venv = Join-Path $Root ".venv"
$Py = Join-Path $Venv "Scripts\python.exe"
$env:PYTHONSAFEPATH = "1" # no Python that is started here executes what lies in the folder one stands in

function Stop-With([string] $Message) {
    [Console]::Error.WriteLine("error: $Message")
    exit 1
}

# The first Python that will do, as a command with its first arguments: $env:PYTHON, the launcher's, then the machine's own.
function Find-Python {
    $candidates = @()
    if ($env:PYTHON) { $candidates += , @($env:PYTHON) }
    foreach ($version in "3.13", "3.12", "3.11", "3.14") { $candidates += , @("py", "-$version") }
    $candidates += , @("python")
    $candidates += , @("python3")
    foreach ($candidate in $candidates) {
        $command, $rest = $candidate
        $rest = @($rest | Where-Object { $_ }) # where there is no more an empty array, for a null might be handed over as a word
        if (-not (Get-Command $command -ErrorAction SilentlyContinue)) { continue }
        # Windows PowerShell turns what a program writes to stderr into errors: silence them for this probe.
        $ErrorActionPreference = "Continue"
        & $command @rest -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>&1 | Out-Null
        $works = $LASTEXITCODE -eq 0
        $ErrorActionPreference = "Stop"
        if ($works) { return , $candidate }
    }
    Stop-With "no Python >= 3.11 found. Install one (winget install Python.Python.3.12), or name one in `$env:PYTHON"
}

# What an installation depends on, in one text: equal text, nothing to do.
function Get-Wanted {
    $files = "pyproject.toml", "constraints.txt", "install_scripts\common.ps1"
    return ($Root + "`n" + (($files | ForEach-Object { Get-Content -Raw (Join-Path $Root $_) }) -join "`n"))
}

# On Windows the ordinary torch wheel has no CUDA: with an NVIDIA GPU take PyTorch's own CUDA wheel.
function Install-CudaTorch {
    if (-not (Get-Command nvidia-smi -ErrorAction SilentlyContinue)) { return }
    $torch = Get-Content (Join-Path $Root "constraints.txt") | Where-Object { $_ -like "torch==*" }
    Write-Host "NVIDIA GPU found: installing the CUDA build of PyTorch (several GB)"
    & $Py -m pip install --no-deps --index-url https://download.pytorch.org/whl/cu130 $torch
    if ($LASTEXITCODE -ne 0) { Write-Host "PyTorch's CUDA builds could not be reached: installing the CPU build instead" }
}

# A card that TensorRT for RTX is made for, by its compute capability, gets it; the camera runs without it too. With a
# driver that is older than CUDA 13 needs each start looks again.
function Install-TensorRT {
    $old = Join-Path $Venv ".old-driver"
    if (Test-Path $old) { Remove-Item $old }
    if (-not (Get-Command nvidia-smi -ErrorAction SilentlyContinue)) { return }
    $cards = "7.5", "8.0", "8.6", "8.9", "12.0", "12.1"
    $found = & nvidia-smi "--query-gpu=compute_cap" "--format=csv,noheader" | Where-Object { $cards -contains "$_".Trim() }
    if (-not $found) { return }
    $driver = & nvidia-smi "--query-gpu=driver_version" "--format=csv,noheader" | Select-Object -First 1
    $major = 0
    if ([int]::TryParse("$driver".Trim().Split(".")[0], [ref] $major) -and $major -lt 580) {
        New-Item -ItemType File -Force $old | Out-Null
        Write-Host "RTX card found, but its driver is $driver, and PyTorch and TensorRT for RTX need 580 or newer: install a newer NVIDIA driver, then start again. Until then the CPU does the work"
        return
    }
    Write-Host "RTX card found: installing TensorRT for RTX (about 100 MB; its licence is NVIDIA's)"
    & $Py -m pip install --disable-pip-version-check --constraint (Join-Path $Root "constraints.txt") --editable "${Root}[tensorrt]"
    if ($LASTEXITCODE -ne 0) { Write-Host "TensorRT for RTX could not be installed, pip says why above: going on without it" }
}

# Install-Provider ARGUMENTS: installs ONNX Runtime for another maker's card, the one that --provider names or that fits:
# DirectML for any DirectX 12 card but NVIDIA's, which PyTorch serves. Such a package holds the same module as the ordinary
# one, so it lies apart, in .venv\provider, where core/runtimes/onnx/providers.py finds it.
function Install-Provider([string[]] $Arguments) {
    $asked = ""
    for ($i = 0; $i -lt $Arguments.Count; $i++) {
        if ($Arguments[$i] -like "--provider=*") { $asked = $Arguments[$i].Substring(11) }
        elseif ($Arguments[$i] -eq "--provider" -and $i + 1 -lt $Arguments.Count) { $asked = $Arguments[$i + 1] }
    }
    $wanted = $asked
    if (-not $wanted -or $wanted -eq "auto") {
        if (Get-Command nvidia-smi -ErrorAction SilentlyContinue) { return }
        $cards = @(Get-CimInstance Win32_VideoController -ErrorAction SilentlyContinue | ForEach-Object { $_.Name })
        if (-not ($cards | Where-Object { $_ -and $_ -notlike "Microsoft*" })) { return }
        $wanted = "directml"
    }
    if ($wanted -notin "directml", "openvino") { return }
    $package = Get-Content (Join-Path $Root "constraints-providers.txt") | Where-Object { $_ -like "onnxruntime-$wanted==*" }
    if (-not $package) { return }
    $folder = Join-Path $Venv "provider"
    $stamp = Join-Path $folder ".package"
    $failed = Join-Path $Venv ".no-provider"
    if ((Test-Path $stamp) -and (Get-Content $stamp) -ceq $package) { return }
    if ($wanted -ne $asked -and (Test-Path $failed) -and (Get-Content $failed) -ceq $package) { return }
    Write-Host "Installing ONNX Runtime with $wanted, for this machine's card (--provider cpu does without)"
    if (Test-Path $folder) { Remove-Item -Recurse -Force $folder }
    & $Py -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps --target $folder $package
    if ($LASTEXITCODE -eq 0) {
        Set-Content $stamp $package
        return
    }
    if (Test-Path $folder) { Remove-Item -Recurse -Force $folder }
    if ($wanted -eq $asked) { Stop-With "$package could not be installed: pip says why above" }
    Set-Content $failed $package
    Write-Host "$package could not be installed, so the CPU does the work; --provider $wanted tries it again"
}

# Enter-Environment run | test: .venv holds the checkout and all that this purpose needs, at the versions of constraints.txt.
function Enter-Environment([string] $Purpose) {
    $extras = if ($Purpose -eq "run") { "camera,obs,marking,microphone" } else { "camera,obs,marking,microphone,tray,dev" }
    $stamp = Join-Path $Venv ".ready-$Purpose"
    $unfinished = Join-Path $Venv ".installing"
    $wanted = Get-Wanted
    if ((Test-Path $Py) -and (Test-Path $stamp) -and -not (Test-Path $unfinished)) {
        if ([IO.File]::ReadAllText($stamp) -ceq $wanted) {
            if (Test-Path (Join-Path $Venv ".old-driver")) { Install-TensorRT }
            return
        }
    }
    $command, $rest = Find-Python
    $rest = @($rest | Where-Object { $_ })
    if ((Test-Path $unfinished) -or -not (Test-Path $Py)) {
        if (Test-Path $Venv) { Remove-Item -Recurse -Force $Venv }
        Write-Host "Making .venv with $command $rest"
        & $command @rest -m venv $Venv
        if ($LASTEXITCODE -ne 0) { Stop-With "$command could not make $Venv" }
    }
    New-Item -ItemType File -Force $unfinished | Out-Null
    Install-CudaTorch
    Write-Host "Installing into .venv: the first time takes some minutes"
    & $Py -m pip install --disable-pip-version-check --constraint (Join-Path $Root "constraints.txt") --editable "${Root}[$extras]"
    if ($LASTEXITCODE -ne 0) { Stop-With "the installation did not finish: pip says why above. The same command tries again" }
    Install-TensorRT
    & $Py -c "import cv2, torch"
    if ($LASTEXITCODE -ne 0) { Stop-With "what was installed does not load: the lines above say why" }
    [IO.File]::WriteAllText((Join-Path $Venv ".ready-run"), $wanted)
    [IO.File]::WriteAllText($stamp, $wanted)
    Remove-Item $unfinished
}
