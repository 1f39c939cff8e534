# Stands in for redis:8-bookworm: the same user, folder and entrypoint contract.
groupadd --gid 999 redis
useradd --uid 999 --gid 999 --no-create-home redis
apt-get install --yes --no-install-recommends redis-server gosu
install -d -o redis -g redis /data
