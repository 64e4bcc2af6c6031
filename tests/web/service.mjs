// What the test has the canister do besides chatting: take a model, and let visitors in. As its controller, who is the
// anonymous principal at a local endpoint unless told otherwise.

import { createHash } from 'node:crypto';
import { Actor, HttpAgent } from '@icp-sdk/core/agent';
import { IDL } from '@icp-sdk/core/candid';

const CHUNK_BYTES = 1_900_000;
const { Bool, Nat8, Nat64, Null, Opt, Record, Reserved, Text, Variant, Vec } = IDL;
const outcome = ok => Variant({ Ok: ok, Err: Reserved });

const service = () => IDL.Service({
  upload_begin: IDL.Func([Record({ name: Text, total_bytes: Nat64, sha256: Vec(Nat8) })], [outcome(Record({ upload_id: Nat64 }))], []),
  upload_chunk: IDL.Func([Record({ upload_id: Nat64, offset: Nat64, bytes: Vec(Nat8) })], [outcome(Reserved)], []),
  upload_commit: IDL.Func([Record({ upload_id: Nat64, max_instructions: Opt(Nat64) })], [outcome(Record({ done: Bool }))], []),
  model_load_step: IDL.Func([Record({ max_instructions: Opt(Nat64) })], [outcome(Record({ ready: Bool }))], []),
  config_set: IDL.Func([Record({ generate_access: Opt(Variant({ Authenticated: Null })) })], [outcome(Reserved)], []),
});

function ok(answer) {
  if (!('Ok' in answer)) throw new Error(`the canister refuses: ${JSON.stringify(answer, (_, value) => String(value))}`);
  return answer.Ok;
}

export class Service {
  static async at(url, canisterId) {
    const agent = await HttpAgent.create({ host: url, shouldFetchRootKey: true });
    const made = new Service();
    made.rootKey = agent.rootKey;
    made.actor = Actor.createActor(service, { agent, canisterId });
    return made;
  }

  // Uploads a model file and waits until it answers.
  async take(name, file) {
    const sha256 = createHash('sha256').update(file).digest();
    const { upload_id } = ok(await this.actor.upload_begin({ name, total_bytes: BigInt(file.length), sha256 }));
    for (let offset = 0; offset < file.length; offset += CHUNK_BYTES) {
      const bytes = file.subarray(offset, offset + CHUNK_BYTES);
      ok(await this.actor.upload_chunk({ upload_id, offset: BigInt(offset), bytes }));
    }
    while (!ok(await this.actor.upload_commit({ upload_id, max_instructions: [] })).done);
    while (!ok(await this.actor.model_load_step({ max_instructions: [] })).ready);
  }

  // Lets everybody with an identity chat.
  async admitAll() {
    ok(await this.actor.config_set({ generate_access: [{ Authenticated: null }] }));
  }
}
