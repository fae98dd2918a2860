FROM python:3.13-slim AS wheels
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY cio_proxy cio_proxy
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[redis]'

FROM python:3.13-slim
LABEL org.opencontainers.image.title="cio-proxy" \
      org.opencontainers.image.description="A runtime-auditing HTTP proxy for Customer.io integrations" \
      org.opencontainers.image.licenses="MIT"
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels 'cio-proxy[redis]' && \
    install -d -o 10001 -g 10001 /var/lib/cio-proxy
ENV PYTHONUNBUFFERED=1 XDG_STATE_HOME=/var/lib/cio-proxy
USER 10001:10001
EXPOSE 8080 9180
ENTRYPOINT ["cio-proxy"]
CMD ["run", "--listen", "0.0.0.0:8080", "--admin", "0.0.0.0:9180"]
