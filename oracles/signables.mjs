// ethers and viem as oracles for what an EVM wallet signs beside transactions. A
// line is one of
//   {"id", "kind", …, "digest", "signature", "from"}   a payload that we decoded and
//       signed: both libraries compute its digest, and recover the signer
//   {"id", "abi", "args", "sign"}                      calldata that both libraries
//       encode alike: answers {data}
// Kinds and their members are those of `sigilctl decode`.
import { AbiCoder, Interface, TypedDataEncoder, ethers, hashAuthorization, hashMessage, keccak256, recoverAddress } from 'ethers';
import { encodeFunctionData, hashMessage as viemHashMessage, hashTypedData, parseAbi, recoverAddress as viemRecover } from 'viem';
import { getUserOperationHash } from 'viem/account-abstraction';
import { hashAuthorization as viemHashAuthorization } from 'viem/utils';
import { answer, same } from './lines.mjs';

const safeTypes = {
  SafeTx: [
    ['to', 'address'], ['value', 'uint256'], ['data', 'bytes'], ['operation', 'uint8'], ['safeTxGas', 'uint256'], ['baseGas', 'uint256'],
    ['gasPrice', 'uint256'], ['gasToken', 'address'], ['refundReceiver', 'address'], ['nonce', 'uint256'],
  ].map(([name, type]) => ({ name, type })),
};

function typedHashes({ types, primaryType, domain, message }) {
  const { EIP712Domain, ...own } = types;
  // ethers finds the primary type itself, as the one that no other names: only what
  // it leads to may be given.
  const reached = {};
  const walk = (name) => {
    if (!own[name] || reached[name]) return;
    reached[name] = own[name];
    for (const f of own[name]) walk(f.type.replace(/(\[\d*\])+$/, ''));
  };
  walk(primaryType);
  let ethersHash = null;
  if (EIP712Domain.length > 0) {
    const declared = Object.fromEntries(EIP712Domain.map((f) => [f.name, domain[f.name]]));
    try {
      ethersHash = TypedDataEncoder.hash(declared, reached, message);
    } catch (e) {
      if (!/circular|ambiguous primary|missing primary/.test(e.message)) throw e; // it takes no recursive types
    }
  }
  return [ethersHash, hashTypedData({ types, primaryType, domain, message })];
}

// opHashes packs as the contracts do, with ethers; viem takes the unpacked form.
function opHashes({ version, chainId, entryPoint, packed: p }) {
  const coder = AbiCoder.defaultAbiCoder();
  const hash = (x) => keccak256(x);
  const split = (w) => [BigInt('0x' + w.slice(2, 34)), BigInt('0x' + w.slice(34))];
  const common = { sender: p.sender, nonce: BigInt(p.nonce), callData: p.callData, preVerificationGas: BigInt(p.preVerificationGas), signature: '0x' };
  if (version === '0.6') {
    const inner = hash(coder.encode(
      ['address', 'uint256', 'bytes32', 'bytes32', 'uint256', 'uint256', 'uint256', 'uint256', 'uint256', 'bytes32'],
      [p.sender, p.nonce, hash(p.initCode), hash(p.callData), p.callGasLimit, p.verificationGasLimit, p.preVerificationGas, p.maxFeePerGas, p.maxPriorityFeePerGas, hash(p.paymasterAndData)]));
    return [hash(coder.encode(['bytes32', 'address', 'uint256'], [inner, entryPoint, chainId])), getUserOperationHash({
      chainId: Number(chainId), entryPointAddress: entryPoint, entryPointVersion: version,
      userOperation: { ...common, initCode: p.initCode, callGasLimit: BigInt(p.callGasLimit), verificationGasLimit: BigInt(p.verificationGasLimit),
        maxFeePerGas: BigInt(p.maxFeePerGas), maxPriorityFeePerGas: BigInt(p.maxPriorityFeePerGas), paymasterAndData: p.paymasterAndData } })];
  }
  const [verificationGasLimit, callGasLimit] = split(p.accountGasLimits);
  const [maxPriorityFeePerGas, maxFeePerGas] = split(p.gasFees);
  const deploys = p.initCode.length > 2;
  const pays = p.paymasterAndData.length > 2;
  const viemHash = getUserOperationHash({
    chainId: Number(chainId), entryPointAddress: entryPoint, entryPointVersion: version,
    userOperation: { ...common, callGasLimit, verificationGasLimit, maxFeePerGas, maxPriorityFeePerGas,
      ...(deploys ? { factory: p.initCode.slice(0, 42), factoryData: '0x' + p.initCode.slice(42) } : {}),
      ...(pays ? { paymaster: p.paymasterAndData.slice(0, 42), paymasterVerificationGasLimit: BigInt('0x' + p.paymasterAndData.slice(42, 74)),
        paymasterPostOpGasLimit: BigInt('0x' + p.paymasterAndData.slice(74, 106)), paymasterData: '0x' + p.paymasterAndData.slice(106) } : {}) } });
  if (version === '0.8') {
    const types = { PackedUserOperation: [['sender', 'address'], ['nonce', 'uint256'], ['initCode', 'bytes'], ['callData', 'bytes'],
      ['accountGasLimits', 'bytes32'], ['preVerificationGas', 'uint256'], ['gasFees', 'bytes32'], ['paymasterAndData', 'bytes']].map(([name, type]) => ({ name, type })) };
    return [TypedDataEncoder.hash({ name: 'ERC4337', version: '1', chainId, verifyingContract: entryPoint }, types, p), viemHash];
  }
  const inner = hash(coder.encode(
    ['address', 'uint256', 'bytes32', 'bytes32', 'bytes32', 'uint256', 'bytes32', 'bytes32'],
    [p.sender, p.nonce, hash(p.initCode), hash(p.callData), p.accountGasLimits, p.preVerificationGas, p.gasFees, hash(p.paymasterAndData)]));
  return [hash(coder.encode(['bytes32', 'address', 'uint256'], [inner, entryPoint, chainId])), viemHash];
}

function digests(row) {
  switch (row.kind) {
    case 'evm.message':
      return [hashMessage(ethers.getBytes(row.bytes)), viemHashMessage({ raw: row.bytes })];
    case 'evm.typed_data':
      return typedHashes(JSON.parse(row.rawJson));
    case 'evm.authorization':
      return [hashAuthorization({ address: row.address, chainId: BigInt(row.chainId), nonce: BigInt(row.nonce) }),
        BigInt(row.nonce) <= BigInt(Number.MAX_SAFE_INTEGER) && BigInt(row.chainId) <= BigInt(Number.MAX_SAFE_INTEGER)
          ? viemHashAuthorization({ contractAddress: row.address, chainId: Number(row.chainId), nonce: Number(row.nonce) }) : null];
    case 'evm.safe_transaction':
      return [TypedDataEncoder.hash(row.domain, safeTypes, row.message),
        hashTypedData({ domain: row.domain, types: safeTypes, primaryType: 'SafeTx', message: row.message })];
    case 'evm.user_operation': {
      const hashes = opHashes(row);
      same('userOpHash', hashes[0], row.hash);
      same('userOpHash (viem)', hashes[1], row.hash);
      return row.version === '0.8' ? hashes : [hashMessage(ethers.getBytes(hashes[0])), viemHashMessage({ raw: hashes[1] })];
    }
  }
  throw new Error(`unknown kind ${row.kind}`);
}

await answer(async (row) => {
  if (row.abi) {
    const data = new Interface([`function ${row.abi}`]).encodeFunctionData(row.abi.split('(')[0], row.args);
    same('calldata (viem)', encodeFunctionData({ abi: parseAbi([`function ${row.abi}`]), args: row.args }), data);
    return { data };
  }
  const [byEthers, byViem] = digests(row);
  if (byEthers === null && byViem === null) throw new Error('no library has a digest');
  if (byEthers !== null) same('digest (ethers)', byEthers, row.digest);
  if (byViem !== null) same('digest (viem)', byViem, row.digest);
  same('signer (ethers)', recoverAddress(row.digest, row.signature), row.from);
  same('signer (viem)', await viemRecover({ hash: row.digest, signature: row.signature }), row.from);
  if (BigInt('0x' + row.signature.slice(66, 130)) > 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n) throw new Error('s is high');
  return { digest: row.digest };
});
