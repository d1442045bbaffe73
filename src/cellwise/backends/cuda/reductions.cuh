// For kernels that add up over the units of a row. Lanes that differ in some bits give each other what they have, so that
// all of these have the total, added up in an order that depends on nothing.
template <int LEAST, int MOST> DEVICE float lanes_sum(float v) {
  for (int x = LEAST; x <= MOST; x *= 2) v += AS_FLOAT(__shfl_xor_sync(0xffffffffu, AS_BITS(v), x));
  return v;
}
template <int LEAST, int MOST> DEVICE float lanes_greatest(float v) {
  for (int x = LEAST; x <= MOST; x *= 2) v = greatest(v, AS_FLOAT(__shfl_xor_sync(0xffffffffu, AS_BITS(v), x)));
  return v;
}
