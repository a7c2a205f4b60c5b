#!/bin/bash
# liftgate_environment.sh BASE_PREFIX SITE_PACKAGES SOURCE
#
# Makes /opt/liftgate/venv on a test machine out of what the tests themselves run on. Bind mounts,
# because a service with ProtectHome sees nothing that lies under somebody's home folder.
set -euo pipefail
base=$1 packages=$2 source=$3
mkdir -p /opt/liftgate/{python,packages,source}
mount --bind "$base" /opt/liftgate/python
mount --bind "$packages" /opt/liftgate/packages
mount --bind "$source" /opt/liftgate/source
# Its library is looked for under its first name, which a service does not see either.
echo /opt/liftgate/python/lib > /etc/ld.so.conf.d/000-liftgate-tests.conf
ldconfig
/opt/liftgate/python/bin/python3 -m venv --without-pip /opt/liftgate/venv
own=$(/opt/liftgate/venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
printf '/opt/liftgate/source\n/opt/liftgate/packages\n' > "$own/liftgate-tests.pth"
cat > /opt/liftgate/venv/bin/liftgate <<'SCRIPT'
#!/opt/liftgate/venv/bin/python
import sys
from liftgate.cli import main
sys.exit(main())
SCRIPT
chmod 755 /opt/liftgate/venv/bin/liftgate
