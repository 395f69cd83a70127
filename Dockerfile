# The rerank server on a CPU. Build: docker build -t prorank .   Run: docker run -p 8080:8080 prorank
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
# No PyTorch: the built-in rerankers run on our own engine.
RUN python -m venv /opt/prorank \
    && /opt/prorank/bin/pip install --no-cache-dir --constraint constraints.txt ".[serve]"

FROM python:3.12-slim
# Our own engine is compiled for the processor that it meets, when it is first used, into /cache.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/prorank /opt/prorank
RUN useradd --create-home --uid 10001 prorank && mkdir -p /cache && chown prorank /cache
USER prorank
ENV PATH=/opt/prorank/bin:$PATH PRORANK_CACHE=/cache HF_HOME=/cache/huggingface PYTHONUNBUFFERED=1
VOLUME /cache
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/ready', timeout=4)"]
ENTRYPOINT ["prorank", "serve", "--host", "0.0.0.0"]
