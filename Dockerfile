# The rerank server on a CPU. Build: docker build -t prorank .   Run: docker run -p 8080:8080 prorank
FROM python:3.12-slim AS build
WORKDIR /src
# PyPI's ziglang compiles our own engine for every instruction set of Linux; it stays in this stage.
RUN pip install --no-cache-dir "hatchling>=1.27" "ziglang>=0.13"
COPY pyproject.toml README.md LICENSE constraints.txt hatch_build.py ./
COPY src ./src
RUN PRORANK_WHEEL_ONLY=linux- pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels .
# No PyTorch: the built-in rerankers run on our own engine.
RUN python -m venv --without-pip /opt/prorank \
    && pip --python /opt/prorank/bin/python install --no-cache-dir --constraint constraints.txt \
        "prorank[serve] @ file://$(ls /wheels/*.whl)"

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 prorank && mkdir -p /cache && chown 10001 /cache
COPY --from=build /opt/prorank /opt/prorank
USER 10001
ENV PATH=/opt/prorank/bin:$PATH PRORANK_CACHE=/cache HF_HOME=/cache/huggingface PYTHONUNBUFFERED=1
VOLUME /cache
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/ready', timeout=4)"]
ENTRYPOINT ["prorank", "serve", "--host", "0.0.0.0"]
