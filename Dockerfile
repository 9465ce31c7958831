# Rivals in a container: the studio, or any command. See docs/container.md.
#
#     docker build -t rivals .                               on the CPU
#     docker build -t rivals-cuda --build-arg DEVICE=cuda .  with CUDA
ARG PYTHON_IMAGE=python:3.12-slim
FROM ${PYTHON_IMAGE}

# cpu or cuda. PyPI has PyTorch with CUDA alone for Linux on x86, so that without it has an index of its own.
ARG DEVICE=cpu
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=demo,studio,lite0
# Of the user in the container: that of the owner of a mounted folder, so that it can be written.
ARG UID=1000

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# PyTorch first: it is most of the image, and stays in Docker's cache when the code changes.
RUN case "$DEVICE" in \
        cpu) pip install --index-url "$CPU_INDEX" torch torchvision ;; \
        cuda) pip install torch torchvision ;; \
        *) echo "DEVICE is '$DEVICE': give cpu or cuda" >&2; exit 1 ;; \
    esac

# Editable, so that the classifiers in benchmarks/models are found beside the code.
WORKDIR /opt/rivals
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY benchmarks/models benchmarks/models
RUN pip install --editable ".[$EXTRAS]"

RUN useradd --create-home --uid "$UID" rivals \
    && mkdir -p /workspace/runs /workspace/data \
    && chown -R rivals /workspace
USER rivals
WORKDIR /workspace
ENV RIVALS_DATA=/workspace/data
VOLUME ["/workspace/runs", "/workspace/data"]

EXPOSE 7860
ENTRYPOINT ["rivals"]
CMD ["studio", "--host", "0.0.0.0", "--port", "7860", "--no-open"]
