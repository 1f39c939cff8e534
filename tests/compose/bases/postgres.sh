# Stands in for postgres:17-bookworm: the same user, folders and entrypoint contract.
groupadd --gid 999 postgres
useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres
mkdir -p /etc/postgresql-common
echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
apt-get install --yes --no-install-recommends postgresql-17 gosu
install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
install -d -o postgres -g postgres -m 3777 /var/run/postgresql
sed -ri "s/^#?(listen_addresses\s*=\s*)\S+.*/\1'*'/" /usr/share/postgresql/17/postgresql.conf.sample
