// Creates, installs and uses the icllama canister at a local replica with @icp-sdk/core, which verifies certificates and
// the node's signatures. Usage: node client.mjs URL WASM
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { Actor, CanisterStatus, HttpAgent } from "@icp-sdk/core/agent";
import { IDL } from "@icp-sdk/core/candid";
import { Ed25519KeyIdentity, DelegationChain, DelegationIdentity } from "@icp-sdk/core/identity";
import { Secp256k1KeyIdentity } from "@icp-sdk/core/identity/secp256k1";
import { Principal } from "@icp-sdk/core/principal";

const [url, wasmPath] = process.argv.slice(2);
const wasm = await readFile(wasmPath);

const management = () =>
  IDL.Service({
    provisional_create_canister_with_cycles: IDL.Func(
      [IDL.Record({ amount: IDL.Opt(IDL.Nat) })],
      [IDL.Record({ canister_id: IDL.Principal })],
      [],
    ),
    install_code: IDL.Func(
      [
        IDL.Record({
          mode: IDL.Variant({ install: IDL.Null, upgrade: IDL.Null }),
          canister_id: IDL.Principal,
          wasm_module: IDL.Vec(IDL.Nat8),
          arg: IDL.Vec(IDL.Nat8),
        }),
      ],
      [],
      [],
    ),
  });
const Outcome = IDL.Variant({ Ok: IDL.Reserved, Err: IDL.Reserved });
const icllama = () =>
  IDL.Service({
    version: IDL.Func([], [IDL.Record({ version: IDL.Text })], ["query"]),
    config_set: IDL.Func([IDL.Record({})], [Outcome], []),
    absent: IDL.Func([], [], []),
    absent_query: IDL.Func([], [], ["query"]),
  });

const connect = (identity) => HttpAgent.create({ host: url, shouldFetchRootKey: true, identity });
const manage = (agent, about) =>
  Actor.createActor(management, { agent, canisterId: "aaaaa-aa", effectiveCanisterId: about });

const owner = Ed25519KeyIdentity.generate();
const agent = await connect(owner);
const none = Principal.managementCanister();
const created = await manage(agent, none).provisional_create_canister_with_cycles({ amount: [] });
const canisterId = created.canister_id;
const arg = IDL.encode([IDL.Opt(IDL.Record({}))], [[]]);
const install = (mode) => manage(agent, canisterId).install_code({ mode, canister_id: canisterId, wasm_module: wasm, arg });
await install({ install: null });

const status = await CanisterStatus.request({ canisterId, agent, paths: ["module_hash", "controllers"] });
assert.equal(status.get("module_hash"), createHash("sha256").update(wasm).digest("hex"));
assert.deepEqual(status.get("controllers").map(String), [owner.getPrincipal().toText()]);

const actor = (agent) => Actor.createActor(icllama, { agent, canisterId });
const { version } = await actor(agent).version();
assert.ok("Ok" in (await actor(agent).config_set({})), "the owner may change settings");
await install({ upgrade: null });

const session = Ed25519KeyIdentity.generate();
const chain = await DelegationChain.create(owner, session.getPublicKey(), new Date(Date.now() + 60_000));
const delegated = await connect(DelegationIdentity.fromDelegation(session, chain));
assert.ok("Ok" in (await actor(delegated).config_set({})), "a delegated key acts for the owner");
const stranger = await connect(Secp256k1KeyIdentity.generate());
await assert.rejects(actor(stranger).config_set({}), /IC0406/, "the canister lets nobody else in");

await assert.rejects(actor(agent).absent(), /IC0536|has no update method/);
await assert.rejects(actor(agent).absent_query(), /IC0536|has no query method/);
console.log(`@icp-sdk/core: canister ${canisterId}, version ${version}: created, installed, called, upgraded`);
