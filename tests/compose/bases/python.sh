# Stands in for python:3.11-slim-bookworm.
apt-get install --yes --no-install-recommends python3 python3-pip ca-certificates
for name in python python3; do ln -s /usr/bin/python3.11 /usr/local/bin/$name; done
rm /usr/lib/python3.11/EXTERNALLY-MANAGED   # there, pip installs beside Python too
