# Sets up the virtual camera "StreamV2V Camera" on Windows, with UnityCapture (a DirectShow filter). Can be run again.
#
#   .\install_scripts\camera.ps1            says what it would do, asks, does it
#   .\install_scripts\camera.ps1 -Yes       does not ask
#   .\install_scripts\camera.ps1 -DryRun    only says it
#   .\install_scripts\camera.ps1 -Undo      takes everything back that it did
#
# The two DLLs come from UnityCapture's own repository, at one commit, and must have the checksums below.
param([switch] $Yes, [switch] $DryRun, [switch] $Undo, [switch] $Elevated)

$ErrorActionPreference = "Stop"
$Label = "StreamV2V Camera"
$Commit = "3ed54c325e0ad71afcf4f246c07e5e17b3d7f2d2"
$Source = "https://raw.githubusercontent.com/schellingb/UnityCapture/$Commit/Install"
$Folder = Join-Path $env:ProgramFiles "StreamV2V Camera"
$Filters = @(
    @{ Name = "UnityCaptureFilter64.dll"; Sha256 = "72812f5363d8ecb45632253f8c8c888844b1b62e27616f3c8cc21064ccde25e5"; Registrar = "System32" }
    @{ Name = "UnityCaptureFilter32.dll"; Sha256 = "aa3ebdf03dea7f3aab3dd7b724751f49ed71672256b57c6a19aa6809cabf30ba"; Registrar = "SysWOW64" }
)
# DirectShow's list of cameras, for 64-bit programs and for 32-bit programs.
$Cameras = "SOFTWARE\Classes\CLSID\{860BB310-5D01-11D0-BD3B-00A0C911CE86}\Instance"

function Stop-With([string] $Message) {
    [Console]::Error.WriteLine("error: $Message")
    exit 1
}

# Names and files of the UnityCapture filters that are registered, by whomever.
function Get-Registered {
    $found = @()
    foreach ($view in [Microsoft.Win32.RegistryView]::Registry64, [Microsoft.Win32.RegistryView]::Registry32) {
        $root = [Microsoft.Win32.RegistryKey]::OpenBaseKey([Microsoft.Win32.RegistryHive]::LocalMachine, $view)
        $list = $root.OpenSubKey($Cameras)
        if ($null -eq $list) { continue }
        foreach ($id in $list.GetSubKeyNames()) {
            $camera = $list.OpenSubKey($id)
            $class = [string] $camera.GetValue("CLSID", $id)
            $file = $root.OpenSubKey("SOFTWARE\Classes\CLSID\$class\InprocServer32")
            if ($null -eq $file) { continue }
            $path = [string] $file.GetValue("")
            if ($path -and (Split-Path -Leaf $path) -like "UnityCaptureFilter*.dll") {
                $found += @{ View = $view; Name = [string] $camera.GetValue("FriendlyName"); Path = $path }
            }
        }
    }
    return , $found
}

function Test-Ours($Camera) {
    return $Camera.Name -eq $Label -and (Split-Path -Parent $Camera.Path) -eq $Folder
}

function Test-Administrator {
    $me = New-Object Security.Principal.WindowsPrincipal([Security.Principal.WindowsIdentity]::GetCurrent())
    return $me.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

# Says the steps and asks; the work itself is done by this script again, started as administrator.
function Confirm-Steps([string[]] $Steps) {
    if ($Elevated) { return }
    Write-Host "This will be done, with administrator rights:"
    foreach ($step in $Steps) { Write-Host "  - $step" }
    if ($DryRun) { exit 0 }
    if (-not $Yes) {
        $answer = Read-Host "Go on? [y/N]"
        if ($answer -notmatch "^[yY]") {
            Write-Host "Nothing was done."
            exit 1
        }
    }
    if (Test-Administrator) { return }
    $arguments = @("-NoProfile", "-ExecutionPolicy", "Bypass", "-File", "`"$PSCommandPath`"", "-Yes", "-Elevated")
    if ($Undo) { $arguments += "-Undo" }
    try {
        $process = Start-Process -FilePath (Get-Process -Id $PID).Path -ArgumentList $arguments -Verb RunAs -Wait -PassThru
    }
    catch { Stop-With "administrator rights were not given: nothing was done" }
    if ($process.ExitCode -ne 0) { Stop-With "it did not work; start PowerShell as administrator and run this script there" }
    exit 0
}

function Invoke-Registrar([hashtable] $Filter, [string[]] $Options) {
    $program = Join-Path $env:windir (Join-Path $Filter.Registrar "regsvr32.exe")
    $arguments = @("/s") + $Options + @("`"$(Join-Path $Folder $Filter.Name)`"")
    $process = Start-Process -FilePath $program -ArgumentList $arguments -Wait -PassThru -WindowStyle Hidden
    return $process.ExitCode
}

function Save-Filters {
    New-Item -ItemType Directory -Force $Folder | Out-Null
    [Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12
    foreach ($filter in $Filters) {
        $path = Join-Path $Folder $filter.Name
        if ((Test-Path $path) -and (Get-FileHash -Algorithm SHA256 $path).Hash -eq $filter.Sha256) { continue }
        $part = "$path.part"
        try { Invoke-WebRequest -UseBasicParsing -Uri "$Source/$($filter.Name)" -OutFile $part }
        catch { Stop-With "$($filter.Name) could not be downloaded: $($_.Exception.Message)" }
        if ((Get-FileHash -Algorithm SHA256 $part).Hash -ne $filter.Sha256) {
            Remove-Item -Force $part
            Stop-With "$($filter.Name) is not what it should be (its checksum differs): nothing was registered"
        }
        Move-Item -Force $part $path
    }
}

function Install-Camera {
    $registered = Get-Registered
    $others = @($registered | Where-Object { -not (Test-Ours $_) })
    if ($others.Count -gt 0) {
        Stop-With "UnityCapture is registered already, as `"$($others[0].Name)`" ($($others[0].Path)); it can be there only once. Take it away first: regsvr32 /u with that file"
    }
    if (@($registered | Where-Object { Test-Ours $_ }).Count -eq $Filters.Count) {
        Write-Host "All is there: `"$Label`" needs nothing."
        return
    }
    Confirm-Steps @(
        "download $($Filters.Name -join ' and ') from $Source into $Folder, and verify their checksums",
        "register them (regsvr32) under the name `"$Label`"")
    Save-Filters
    foreach ($filter in $Filters) {
        $status = Invoke-Registrar $filter @("`"/i:UnityCaptureName=$Label`"")
        if ($status -ne 0) { Stop-With "regsvr32 refused $($filter.Name) (status $status)" }
    }
    Write-Host "Ready: start .\install_scripts\run.ps1, then choose `"$Label`" in a program that was started after it."
    Write-Host "Programs that list Media Foundation cameras only (the Camera app) do not show it; OBS's camera is the other way."
}

function Remove-Camera {
    if (-not (Test-Path $Folder)) {
        Write-Host "Nothing is left of it."
        return
    }
    Confirm-Steps @("take `"$Label`" off the list of cameras (regsvr32 /u)", "delete $Folder")
    foreach ($filter in $Filters) {
        if (-not (Test-Path (Join-Path $Folder $filter.Name))) { continue }
        $status = Invoke-Registrar $filter @("/u")
        if ($status -ne 0) { Stop-With "regsvr32 could not take $($filter.Name) off (status $status)" }
    }
    try { Remove-Item -Recurse -Force $Folder }
    catch { Stop-With "$Folder is in use: close the programs that show cameras, then run this again" }
    Write-Host "`"$Label`" is gone."
}

if (-not [Environment]::Is64BitOperatingSystem) { Stop-With "this needs 64-bit Windows" }
if ($Undo) { Remove-Camera } else { Install-Camera }
