# Sets up what is missing, then starts the camera: .\install_scripts\run.ps1 [arguments of `vcam run`]
. (Join-Path $PSScriptRoot "common.ps1")

Enter-Environment run
Install-Provider $args
& $Py -m vcam run @args
exit $LASTEXITCODE
