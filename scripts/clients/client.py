"""Creates, installs and uses the icllama canister at a local replica with icp-py-core.

The library verifies node signatures with any root key, certificates only with the mainnet's: they are not verified here
(node's client does). Usage: python client.py URL WASM
"""

import hashlib
import pathlib
import sys

import cbor2
from icp_agent import Agent, Client
from icp_candid.candid import Types
from icp_core.errors import ReplicaReject
from icp_identity import Identity
from icp_principal import Principal

MANAGEMENT = "aaaaa-aa"


def argument(fields):
    """The argument of a method that takes one record: {name: (type, value)}."""
    types = Types.Record({name: kind for name, (kind, _) in fields.items()})
    return [{"type": types, "value": {name: value for name, (_, value) in fields.items()}}]


def manage(agent, about, method, fields, returns=None):
    return agent.update(
        MANAGEMENT,
        method,
        argument(fields),
        return_type=returns,
        effective_canister_id=about,
        verify_certificate=False,
    )


def reject_of(call):
    """The error code of a call that has to be rejected."""
    try:
        call()
    except ReplicaReject as reject:
        return reject.error_code
    raise AssertionError("the call was not rejected")


def main(url, wasm_path):
    wasm = pathlib.Path(wasm_path).read_bytes()
    client = Client(url=url)
    status = client.status()
    status = cbor2.loads(status) if isinstance(status, bytes) else status
    status = getattr(status, "value", status)
    assert status["replica_health_status"] == "healthy", status
    agent = Agent(Identity(), client, root_key=status["root_key"], verify_query_signatures=True)

    amount = {"amount": (Types.Opt(Types.Nat), [])}
    returns = [Types.Record({"canister_id": Types.Principal})]
    created = manage(agent, MANAGEMENT, "provisional_create_canister_with_cycles", amount, returns)
    canister = str(created[0]["value"]["canister_id"])
    module = {
        "mode": (Types.Variant({"install": Types.Null}), {"install": None}),
        "canister_id": (Types.Principal, canister),
        "wasm_module": (Types.Vec(Types.Nat8), wasm),
        "arg": (Types.Vec(Types.Nat8), b"DIDL\x00\x01\x7f"),
    }
    manage(agent, canister, "install_code", module)

    path = [b"canister", Principal.from_str(canister).bytes, b"module_hash"]
    certificate = agent.read_state_raw(canister, [path], verify_certificate=False)
    assert certificate.lookup(path) == hashlib.sha256(wasm).digest()

    returns = [Types.Record({"version": Types.Text})]
    version = agent.query(canister, "version", [], return_type=returns)[0]["value"]["version"]
    configure = lambda agent: agent.update(canister, "config_set", argument({}), verify_certificate=False)
    configure(agent)
    stranger = Agent(Identity(type="secp256k1"), client, root_key=status["root_key"])
    assert reject_of(lambda: configure(stranger)) == "IC0406", "the canister lets nobody else in"
    # The library cannot verify the signature of a rejected query; the stranger's agent does not try.
    assert reject_of(lambda: stranger.query(canister, "absent", [])) == "IC0536"
    print(f"icp-py-core: canister {canister}, version {version}: created, installed, called")


if __name__ == "__main__":
    main(*sys.argv[1:])
