"""An object store that speaks S3 and checks keys: s3.py BUCKET. Prints one line of JSON, with `endpoint`,
`access_key_id` and `secret_access_key`, and serves until its input ends.
"""

import json
import sys

import boto3
from moto import settings
from moto.server import ThreadedMotoServer

ALL_OF_S3 = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
anybody = {"endpoint_url": endpoint, "region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}

iam = boto3.client("iam", **anybody)
iam.create_user(UserName="keeper")
key = iam.create_access_key(UserName="keeper")["AccessKey"]
iam.put_user_policy(UserName="keeper", PolicyName="all", PolicyDocument=json.dumps(ALL_OF_S3))
boto3.client("s3", **anybody).create_bucket(Bucket=sys.argv[1])

# From here on every request must be signed with that key.
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
said = {"endpoint": endpoint, "access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
print(json.dumps(said), flush=True)
sys.stdin.read()
server.stop()
