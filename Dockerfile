# One image for every role: `docker run zenstep-ingest edge`, `worker`, `reader`, or any other `zenstep` command.

FROM python:3.11-slim-bookworm AS dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv --without-pip /opt/zenstep
COPY requirements.lock /tmp/
RUN pip --python /opt/zenstep/bin/python install --require-hashes -r /tmp/requirements.lock

FROM dependencies AS package
WORKDIR /src
COPY . .
RUN pip --python /opt/zenstep/bin/python install --no-deps --no-build-isolation --prefix /package .

FROM python:3.11-slim-bookworm
# A volume that is mounted on the spool's folder takes over its owner.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/zenstep zenstep \
 && install --directory --owner zenstep --mode 0700 /var/lib/zenstep/spool
# Two layers: the large one changes only with the lock file.
COPY --from=dependencies /opt/zenstep /opt/zenstep
COPY --from=package /package /opt/zenstep
ENV PATH=/opt/zenstep/bin:$PATH
# By its number, so that an orchestrator can see that it is not root. Relative paths in the settings are below its home.
USER 10001
WORKDIR /var/lib/zenstep
ENTRYPOINT ["zenstep"]
CMD ["--help"]
