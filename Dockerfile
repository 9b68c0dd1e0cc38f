# StreamV2V Camera for servers: films and pictures, no camera. From this folder:
#
#   docker build -t streamv2v-camera .
#   docker run --rm -u "$(id -u)" -v "$PWD:/films" streamv2v-camera translate in.mp4 out.mp4 --profile claymation
FROM python:3.12-slim
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libxcb1 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY pyproject.toml constraints.txt README.md CHANGELOG.md LICENSE NOTICE ./
COPY core core
COPY vcam vcam
COPY profiles profiles
COPY install_scripts/camera.sh install_scripts/camera.ps1 install_scripts/
# PyTorch without CUDA: of the size that a server without a GPU needs
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt ".[marking]" && rm -rf /build
WORKDIR /films
ENV HOME=/tmp
ENTRYPOINT ["vcam"]
CMD ["--help"]
