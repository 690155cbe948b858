# Serves a model folder: docker build -t twinned . && docker run -p 8000:8000 -v "$PWD/faces.twin:/model:ro" \
#   -e TWINNED_TOKEN=a-long-random-token twinned
FROM python:3.11-slim
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt '.[serve]' && useradd --create-home twinned
USER twinned
EXPOSE 8000
ENTRYPOINT ["twinned", "serve", "/model", "--host", "0.0.0.0"]
