// Forward and backward pass of a recurrent layer, for any cell whose step consists of products and elementwise operations.
//
// A thread processes some rows of the batch for all steps, so steps need no synchronization. The rows of a thread are
// sorted by length, so the active rows of a step come first, and padding costs nothing.
#include <memory>
#include <numeric>
#include <vector>
#include "products.h"
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
static int omp_get_num_threads() { return 1; }
#endif

typedef void (*Pointwise)(const Step*);

// Mirrored in kernel.py. A block has `hidden` columns; a null pointer means that a tensor is missing or not needed.
struct Layer {
  int64_t batch, time, input, hidden, reverse, threads;
  int64_t projected;  // blocks of the projected input, followed by step masks
  int64_t recurrent, fed, states, saved, own, noise, apart;
  int64_t further, entering, leaving;  // further products, and the numbers of all their input and output blocks
  int64_t output_field;                     // the field of the state that is also the output, or -1
  const int64_t* fed_fields;         // (fed): the fields of the state that enter the product
  const int64_t* fed_saved;          // (fed): the block of `saved` with the field, or -1 if it is the output
  const int64_t* gradient_sources;   // (recurrent + leaving): the projected block with the same gradient, or -1 - apart
  const int64_t* further_inside;     // (further): number of input blocks
  const int64_t* further_outside;    // (further): number of output blocks
  const int64_t* further_saved;      // (entering): the block of `saved` with each input block
  const int64_t* lengths;            // (batch) or null
  const Pointwise* pointwise;        // (further + 1), in calling order
  const R *inputs, *weight_ih, *bias_ih, *weight_hh, *bias_hh;
  const R* const* further_weights;   // per product: (outside * hidden, inside * hidden)
  const R* const* further_biases;    // per product, or null
  const R* const* initial;           // per field of the state: (batch, hidden)
  const R* state_mask;               // (batch, fed * hidden)
  const R* const* noises;            // per mask: (batch, hidden)
  const R* own_values;               // (own, hidden)
  R *outputs, *saved_values;
  R* const* final;                   // per field: (batch, hidden)
  // backward pass
  const R* output_gradient;
  const R* const* final_gradient;    // per field, or null
  R *projected_gradient, *apart_gradient;  // (batch, time, blocks * hidden)
  R *input_gradient, *weight_ih_gradient, *bias_ih_gradient, *weight_hh_gradient, *bias_hh_gradient;
  R* const* further_weight_gradients;
  R* const* further_bias_gradients;
  R* const* initial_gradient;        // per field
  R* own_gradient;                   // (own, hidden)
};

struct Rows {  // of one thread, the longest first
  std::vector<int64_t> batch, length;
  int64_t active(int64_t step) const {
    int64_t count = (int64_t)batch.size();
    while (count > 0 && length[count - 1] <= step) count--;
    return count;
  }
};

static int64_t length_of(const Layer& l, int64_t b) { return l.lengths ? l.lengths[b] : l.time; }

static Rows rows_of(const Layer& l, int id, int threads) {
  std::vector<int64_t> order(l.batch);
  std::iota(order.begin(), order.end(), 0);
  if (l.lengths)
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return l.lengths[a] > l.lengths[b]; });
  Rows rows;
  for (int64_t rank = 0; rank < l.batch; rank++) {
    int64_t turn = rank % (2 * threads);  // alternating order, so that all threads get similar numbers of steps
    int64_t owner = l.lengths ? (turn < threads ? turn : 2 * threads - 1 - turn) : rank * threads / l.batch;
    if (owner != id) continue;
    rows.batch.push_back(order[rank]);
    rows.length.push_back(length_of(l, order[rank]));
  }
  return rows;
}

// The position in time of step `step` of a row.
static int64_t moment(const Layer& l, int64_t length, int64_t step) { return l.reverse ? length - 1 - step : step; }

// The output before step `step` of row b: a row of the outputs, or of the initial state.
static const R* before(const Layer& l, int64_t b, int64_t length, int64_t step) {
  if (step == 0) return l.initial[l.output_field] + b * l.hidden;
  return l.outputs + (b * l.time + moment(l, length, step - 1)) * l.hidden;
}

struct Tables {  // what Step points to, for the rows of one thread
  std::vector<const R*> projected, masks, previous, output_gradient;
  std::vector<R*> output, saved, projected_gradient, apart_gradient;
  std::vector<R> noise;
  explicit Tables(const Layer& l, const Rows& rows)
      : projected(rows.batch.size()), masks(projected), previous(projected), output_gradient(projected),
        output(rows.batch.size()), saved(output), projected_gradient(output), apart_gradient(output),
        noise(rows.batch.size() * l.noise * l.hidden) {
    for (size_t m = 0; m < rows.batch.size(); m++) {
      R* row = noise.data() + m * l.noise * l.hidden;
      masks[m] = row;
      for (int64_t k = 0; k < l.noise; k++)
        std::copy_n(l.noises[k] + rows.batch[m] * l.hidden, l.hidden, row + k * l.hidden);
    }
  }
};

// The inputs and outputs of one thread's further products, and the addresses of their rows.
struct Further {
  Memory<R> inside, outside;
  std::vector<std::vector<const R*>> inside_rows, outside_rows;
  std::vector<int64_t> inside_at, outside_at;
  Further(const Layer& l, int64_t count)
      : inside(count * l.entering * l.hidden), outside(count * l.leaving * l.hidden), inside_rows(l.further),
        outside_rows(l.further) {
    for (int64_t k = 0, in = 0, out = 0; k < l.further; k++) {
      inside_at.push_back(in * l.hidden), outside_at.push_back(out * l.hidden);
      for (int64_t m = 0; m < count; m++) {
        inside_rows[k].push_back(inside.at + (m * l.entering + in) * l.hidden);
        outside_rows[k].push_back(outside.at + (m * l.leaving + out) * l.hidden);
      }
      in += l.further_inside[k], out += l.further_outside[k];
    }
  }
};

static Step step_of(const Layer& l, Tables& t, Further& f, R* state, R* recurrent, int64_t stride) {
  Step s = {};
  s.hidden = l.hidden, s.state_stride = l.states * l.hidden, s.recurrent_stride = stride;
  s.further = f.outside.at, s.further_stride = l.leaving * l.hidden;
  s.fed = f.inside.at, s.fed_stride = l.entering * l.hidden;
  s.recurrent = recurrent, s.state = state, s.own = l.own_values;
  s.projected = t.projected.data(), s.masks = t.masks.data(), s.previous = t.previous.data();
  s.output_gradient = t.output_gradient.data(), s.output = t.output.data(), s.saved = t.saved.data();
  s.projected_gradient = t.projected_gradient.data(), s.apart_gradient = t.apart_gradient.data();
  return s;
}

// Gathers and masks the inputs of the recurrent product.
static void feed(const Layer& l, const Rows& rows, int64_t count, const R* state, R* fed) {
  for (int64_t m = 0; m < count; m++)
    for (int64_t k = 0; k < l.fed; k++) {
      const R* from = state + (m * l.states + l.fed_fields[k]) * l.hidden;
      R* to = fed + (m * l.fed + k) * l.hidden;
      if (!l.state_mask) { std::copy_n(from, l.hidden, to); continue; }
      const R* mask = l.state_mask + (rows.batch[m] * l.fed + k) * l.hidden;
      for (int64_t j = 0; j < l.hidden; j++) to[j] = from[j] * mask[j];
    }
}

struct Weights {  // of one direction, packed unless a pass is one step of one row
  bool packed;
  Memory<Unit> input, recurrent;
  std::vector<std::unique_ptr<Memory<Unit>>> further;
  std::vector<std::vector<R>> biases;  // of the inputs, the recurrent product, the further ones; with the width of the panels
  Weights(int64_t input_units, int64_t recurrent_units, bool packed = true)
      : packed(packed), input(packed ? input_units : 0), recurrent(packed ? recurrent_units : 0) {}
};

// C (M, N) = start + A B with weights (N, K), or their packed form.
static void times(const Weights& w, int64_t M, const R* const* a, int64_t K, const Memory<Unit>& packed, const R* weights,
                  int64_t N, R* c, int64_t stride, int64_t room, const R* start) {
  if (w.packed) rows_times(M, a, K, packed.at, N, c, stride, room, start);
  else row_times(a[0], K, weights, N, c, start);
}

static void forward_rows(const Layer& l, const Rows& rows, const Weights& w) {
  const int64_t H = l.hidden, count = (int64_t)rows.batch.size(), P = l.projected * H, width = padded(l.recurrent * H);
  const int64_t chunk = std::max<int64_t>(1, BLOCK / std::max<int64_t>(count, 1)), room = padded(P);
  Memory<R> state(count * l.states * H), fed(count * l.fed * H), recurrent(count * width);
  Memory<R> projected(l.weight_ih ? chunk * count * room : 0);
  Tables t(l, rows);
  std::vector<const R*> fed_rows(count), input_rows;
  const bool direct = l.fed == 1 && !l.state_mask;
  for (int64_t m = 0; m < count; m++) {
    fed_rows[m] = direct ? state.at + (m * l.states + l.fed_fields[0]) * H : fed.at + m * l.fed * H;
    for (int64_t k = 0; k < l.states; k++)
      std::copy_n(l.initial[k] + rows.batch[m] * H, H, state.at + (m * l.states + k) * H);
  }
  Further f(l, count);
  Step s = step_of(l, t, f, state.at, recurrent.at, width);
  int64_t used = 0, row = 0;
  for (int64_t step = 0; (s.rows = rows.active(step)) > 0; step++) {
    if (l.weight_ih && step % chunk == 0) {  // the inputs of some steps in one product, which stays in the cache
      input_rows.clear();
      for (int64_t ahead = step; ahead < std::min(step + chunk, l.time); ahead++)
        for (int64_t m = 0, n = rows.active(ahead); m < n; m++)
          input_rows.push_back(l.inputs + (rows.batch[m] * l.time + moment(l, rows.length[m], ahead)) * l.input);
      used = (int64_t)input_rows.size(), row = 0;
      times(w, used, input_rows.data(), l.input, w.input, l.weight_ih, P, projected.at, room, room, w.biases[0].data());
    }
    if (l.recurrent) {
      if (!direct) feed(l, rows, s.rows, state.at, fed.at);
      times(w, s.rows, fed_rows.data(), l.fed * H, w.recurrent, l.weight_hh, l.recurrent * H, recurrent.at, width, width,
            w.biases[1].data());
    }
    for (int64_t m = 0; m < s.rows; m++) {
      int64_t at = rows.batch[m] * l.time + moment(l, rows.length[m], step);
      t.projected[m] = l.weight_ih ? projected.at + row++ * room : l.inputs + at * P;
      t.output[m] = l.outputs + at * H;
      if (l.saved_values) t.saved[m] = l.saved_values + at * l.saved * H;
    }
    for (int64_t k = 0; k < l.further; k++) {
      l.pointwise[k](&s);
      const int64_t out = l.further_outside[k] * H;
      times(w, s.rows, f.inside_rows[k].data(), l.further_inside[k] * H, *w.further[k], l.further_weights[k], out,
            f.outside.at + f.outside_at[k], l.leaving * H, out, w.biases[2 + k].data());
    }
    l.pointwise[l.further](&s);
  }
  for (int64_t m = 0; m < count; m++) {
    for (int64_t k = 0; k < l.states; k++)
      std::copy_n(state.at + (m * l.states + k) * H, H, l.final[k] + rows.batch[m] * H);
    R* row = l.outputs + rows.batch[m] * l.time * H;
    std::fill(row + rows.length[m] * H, row + l.time * H, R(0));
  }
}

// From the last step to the first: the gradients of the projected input and of the initial state.
static void backward_rows(const Layer& l, const Rows& rows, const Weights& w, double* own_gradient) {
  const int64_t H = l.hidden, count = (int64_t)rows.batch.size(), R_ = l.recurrent * H, room = padded(l.fed * H);
  Memory<R> state(count * l.states * H), recurrent(count * R_), fed(count * room);
  std::vector<R> nothing(H), own(l.own * H);
  Tables t(l, rows);
  std::vector<const R*> recurrent_rows(count);
  for (int64_t m = 0; m < count; m++) {
    recurrent_rows[m] = recurrent.at + m * R_;
    for (int64_t k = 0; k < l.states; k++) {
      R* to = state.at + (m * l.states + k) * H;
      if (l.final_gradient[k]) std::copy_n(l.final_gradient[k] + rows.batch[m] * H, H, to);
      else std::fill_n(to, H, R(0));
    }
  }
  Further f(l, count);
  Step s = step_of(l, t, f, state.at, recurrent.at, R_);
  s.own_gradient = own.data();
  for (int64_t step = l.time - 1; step >= 0; step--) {
    if ((s.rows = rows.active(step)) == 0) continue;
    for (int64_t m = 0; m < s.rows; m++) {
      int64_t b = rows.batch[m], at = b * l.time + moment(l, rows.length[m], step);
      t.output_gradient[m] = l.output_gradient ? l.output_gradient + at * H : nothing.data();
      t.output[m] = l.outputs + at * H;
      t.saved[m] = l.saved_values + at * l.saved * H;
      t.projected_gradient[m] = l.projected_gradient + at * l.projected * H;
      t.apart_gradient[m] = l.apart_gradient + at * l.apart * H;
      if (l.output_field >= 0) t.previous[m] = before(l, b, rows.length[m], step);
    }
    for (int64_t k = l.further - 1; k >= 0; k--) {
      l.pointwise[l.further - 1 - k](&s);
      const int64_t in = l.further_inside[k] * H;
      rows_times(s.rows, f.outside_rows[k].data(), l.further_outside[k] * H, w.further[k]->at, in,
                 f.inside.at + f.inside_at[k], l.entering * H, in, nullptr);
    }
    std::fill(own.begin(), own.end(), R(0));  // the sums of steps are accumulated in double, since a long sum loses precision
    l.pointwise[l.further](&s);
    for (size_t j = 0; j < own.size(); j++) own_gradient[j] += own[j];
    if (!l.recurrent) continue;
    rows_times(s.rows, recurrent_rows.data(), R_, w.recurrent.at, l.fed * H, fed.at, room, room, nullptr);
    for (int64_t m = 0; m < s.rows; m++)
      for (int64_t k = 0; k < l.fed; k++) {
        R* to = state.at + (m * l.states + l.fed_fields[k]) * H;
        const R* from = fed.at + m * room + k * H;
        const R* mask = l.state_mask ? l.state_mask + (rows.batch[m] * l.fed + k) * H : nullptr;
        if (mask) for (int64_t j = 0; j < H; j++) to[j] += from[j] * mask[j];
        else for (int64_t j = 0; j < H; j++) to[j] += from[j];
      }
  }
  for (int64_t m = 0; m < count; m++) {
    int64_t b = rows.batch[m];
    for (int64_t k = 0; k < l.states; k++)
      std::copy_n(state.at + (m * l.states + k) * H, H, l.initial_gradient[k] + b * H);
    R* row = l.projected_gradient + b * l.time * l.projected * H;
    std::fill(row + rows.length[m] * l.projected * H, row + l.time * l.projected * H, R(0));
  }
}

static void input_gradient_rows(const Layer& l, const Rows& rows, const Unit* weights) {
  const int64_t P = l.projected * l.hidden;
  std::vector<const R*> left(l.time);
  for (size_t m = 0; m < rows.batch.size(); m++) {
    int64_t first = rows.batch[m] * l.time;
    R* to = l.input_gradient + first * l.input;
    for (int64_t step = 0; step < rows.length[m]; step++) left[step] = l.projected_gradient + (first + step) * P;
    rows_times(rows.length[m], left.data(), P, weights, l.input, to, l.input, l.input, nullptr);
    std::fill(to + rows.length[m] * l.input, to + l.time * l.input, R(0));
  }
}

struct Valid {  // every valid step of every row, in the layout of the large products
  std::vector<const R*> inputs, projected, apart, mask;
  std::vector<std::vector<const R*>> fed, entering;
};

static Valid valid_steps(const Layer& l) {
  Valid v;
  v.fed.resize(l.fed), v.entering.resize(l.entering);
  for (int64_t b = 0; b < l.batch; b++)
    for (int64_t step = 0, length = length_of(l, b); step < length; step++) {
      int64_t at = b * l.time + moment(l, length, step);
      v.inputs.push_back(l.inputs + at * l.input);
      v.projected.push_back(l.projected_gradient + at * l.projected * l.hidden);
      v.apart.push_back(l.apart_gradient + at * l.apart * l.hidden);
      v.mask.push_back(l.state_mask ? l.state_mask + b * l.fed * l.hidden : nullptr);
      for (int64_t k = 0; k < l.fed; k++)
        v.fed[k].push_back(l.fed_saved[k] < 0 ? before(l, b, length, step)
                                              : l.saved_values + (at * l.saved + l.fed_saved[k]) * l.hidden);
      for (int64_t k = 0; k < l.entering; k++)
        v.entering[k].push_back(l.saved_values + (at * l.saved + l.further_saved[k]) * l.hidden);
    }
  return v;
}

// Adds the parts of one product's weight gradient: blocks `first` to `last` of all products, whose gradients may be in
// two arrays, with the input block `right`, which is block column `column` of `columns` in the weights.
static void add_parts(const Layer& l, int64_t first, int64_t last, const std::vector<const R*>& right,
                      const std::vector<const R*>& scale, int64_t column, int64_t columns, R* weights, R* bias,
                      std::vector<Part>& shared, std::vector<Part>& apart) {
  const int64_t H = l.hidden;
  for (int64_t begin = first, end; begin < last; begin = end) {  // adjacent blocks in one product
    int64_t source = l.gradient_sources[begin], direction = source < 0 ? -1 : 1;
    for (end = begin + 1; end < last; end++)
      if (l.gradient_sources[end] != source + direction * (end - begin)) break;
    int64_t from = (source < 0 ? -1 - source : source) * H, row = (begin - first) * H;
    (source < 0 ? apart : shared)
        .push_back({from, from + (end - begin) * H, right.data(), scale.empty() ? nullptr : scale.data(), H,
                    weights + row * columns * H + column * H, columns * H, bias && column == 0 ? bias + row : nullptr});
  }
}

// The gradients of the weights, each one product over all steps and rows. Blocks that share a gradient share its packing.
static void weight_gradients(const Layer& l, const Valid& v, Unit* packed, int id, int threads) {
  const int64_t H = l.hidden, count = (int64_t)v.inputs.size();
  std::vector<Part> shared, apart;
  std::vector<std::vector<const R*>> scales(l.fed);
  if (l.weight_ih_gradient)
    shared.push_back({0, l.projected * H, v.inputs.data(), nullptr, l.input, l.weight_ih_gradient, l.input,
                      l.bias_ih_gradient});
  for (int64_t k = 0; k < l.fed && l.weight_hh_gradient; k++) {
    if (l.state_mask)
      for (const R* row : v.mask) scales[k].push_back(row + k * H);
    add_parts(l, 0, l.recurrent, v.fed[k], scales[k], k, l.fed, l.weight_hh_gradient, l.bias_hh_gradient, shared, apart);
  }
  for (int64_t p = 0, in = 0, out = l.recurrent; p < l.further; in += l.further_inside[p], out += l.further_outside[p], p++)
    for (int64_t k = 0; k < l.further_inside[p] && l.weight_hh_gradient; k++)
      add_parts(l, out, out + l.further_outside[p], v.entering[in + k], {}, k, l.further_inside[p],
                l.further_weight_gradients[p], l.further_bias_gradients[p], shared, apart);
  gather(count, v.projected.data(), shared.data(), (int64_t)shared.size(), packed, id, threads);
  gather(count, v.apart.data(), apart.data(), (int64_t)apart.size(), packed, id, threads);
}

static std::vector<R> padded_copy(const R* values, int64_t count) {
  std::vector<R> copy(padded(count));
  if (values) std::copy_n(values, count, copy.begin());
  return copy;
}

// Return codes of forward and backward; 0 is success.
enum { NO_MEMORY = 1, OTHER = 2 };

extern "C" int forward(const Layer* layer) try {
  const Layer& l = *layer;
  const int64_t H = l.hidden, P = l.projected * H, R_ = l.recurrent * H, F = l.fed * H;
  const bool packing = GROUP > 1 || l.batch * l.time > 1;
  Weights w(l.weight_ih ? padded(P) * units(l.input) : 0, padded(R_) * units(F), packing);
  w.biases = {padded_copy(l.bias_ih, P), padded_copy(l.bias_hh, R_)};
  for (int64_t k = 0; k < l.further; k++) {
    int64_t in = l.further_inside[k] * H, out = l.further_outside[k] * H;
    w.further.emplace_back(new Memory<Unit>(packing ? padded(out) * units(in) : 0));
    w.biases.push_back(padded_copy(l.further_biases[k], out));
  }
  int failed = 0;
#pragma omp parallel num_threads((int)l.threads) reduction(max : failed)
  {
    int id = omp_get_thread_num(), threads = omp_get_num_threads();
    if (packing) {
      if (l.weight_ih) pack_panels(l.input, P, l.weight_ih, 1, l.input, w.input.at, id, threads);
      pack_panels(F, R_, l.weight_hh, 1, F, w.recurrent.at, id, threads);
      for (int64_t k = 0; k < l.further; k++) {
        int64_t in = l.further_inside[k] * H, out = l.further_outside[k] * H;
        pack_panels(in, out, l.further_weights[k], 1, in, w.further[k]->at, id, threads);
      }
    }
#pragma omp barrier
    try {
      forward_rows(l, rows_of(l, id, threads), w);
    } catch (const std::bad_alloc&) { failed = NO_MEMORY; } catch (...) { failed = OTHER; }
  }
  return failed;
} catch (const std::bad_alloc&) { return NO_MEMORY; } catch (...) { return OTHER; }

// One step without gradients, of one argument, since each costs Python time. It has the address of a layer with what is
// the same for all steps, batch, input, hidden and threads, and the addresses of the inputs, the weights and biases of the
// two products, each field of the state, the further weights, their biases, the cell's own parameters, (hidden) each, the
// outputs, and each field of the state after the step.
extern "C" int step(const int64_t* call) try {
  Layer l = *(const Layer*)call[0];
  const int64_t hidden = call[3];
  l.batch = call[1], l.time = 1, l.input = call[2], l.hidden = hidden, l.threads = call[4];
  const R* const* tensors = (const R* const*)(call + 5);
  l.inputs = tensors[0], l.weight_ih = tensors[1], l.bias_ih = tensors[2], l.weight_hh = tensors[3], l.bias_hh = tensors[4];
  l.initial = tensors + 5, l.further_weights = l.initial + l.states, l.further_biases = l.further_weights + l.further;
  const R* const* blocks = l.further_biases + l.further;
  std::vector<R> own(l.own * hidden);
  for (int64_t k = 0; k < l.own; k++) std::copy_n(blocks[k], hidden, own.data() + k * hidden);
  l.own_values = own.data();
  l.outputs = const_cast<R*>(blocks[l.own]), l.final = const_cast<R* const*>(blocks + l.own + 1);
  return forward(&l);
} catch (const std::bad_alloc&) { return NO_MEMORY; } catch (...) { return OTHER; }

static void no_weight_gradients(const Layer& l) {
  const int64_t H = l.hidden, P = l.projected * H, R_ = l.recurrent * H;
  auto clear = [](R* values, int64_t count) { if (values) std::fill_n(values, count, R(0)); };
  clear(l.weight_ih_gradient, P * l.input), clear(l.bias_ih_gradient, P);
  clear(l.weight_hh_gradient, R_ * l.fed * H), clear(l.bias_hh_gradient, R_);
  for (int64_t k = 0; k < l.further && l.weight_hh_gradient; k++) {
    clear(l.further_weight_gradients[k], l.further_outside[k] * l.further_inside[k] * H * H);
    clear(l.further_bias_gradients[k], l.further_outside[k] * H);
  }
}

extern "C" int backward(const Layer* layer) try {
  const Layer& l = *layer;
  const int64_t H = l.hidden, P = l.projected * H, R_ = l.recurrent * H, F = l.fed * H, own = l.own * H;
  Weights w(l.input_gradient ? padded(l.input) * units(P) : 0, padded(F) * units(R_));
  int64_t pieces = l.recurrent * l.fed;  // right sides of large products, at most
  for (int64_t k = 0; k < l.further; k++) {
    w.further.emplace_back(new Memory<Unit>(padded(l.further_inside[k] * H) * units(l.further_outside[k] * H)));
    pieces += l.further_inside[k] * l.further_outside[k];
  }
  Memory<Unit> packed((padded(l.input) + pieces * padded(H)) * LONG);
  std::vector<double> own_parts(own * l.threads);
  Valid valid = valid_steps(l);
  if (valid.inputs.empty()) no_weight_gradients(l);
  int failed = 0;
#pragma omp parallel num_threads((int)l.threads) reduction(max : failed)
  {
    int id = omp_get_thread_num(), threads = omp_get_num_threads();
    if (l.input_gradient) pack_panels(P, l.input, l.weight_ih, l.input, 1, w.input.at, id, threads);
    pack_panels(R_, F, l.weight_hh, F, 1, w.recurrent.at, id, threads);
    for (int64_t k = 0; k < l.further; k++) {
      int64_t in = l.further_inside[k] * H, out = l.further_outside[k] * H;
      pack_panels(out, in, l.further_weights[k], in, 1, w.further[k]->at, id, threads);
    }
#pragma omp barrier
    try {
      Rows rows = rows_of(l, id, threads);
      backward_rows(l, rows, w, own_parts.data() + id * own);
      if (l.input_gradient) input_gradient_rows(l, rows, w.input.at);
    } catch (const std::bad_alloc&) { failed = NO_MEMORY; } catch (...) { failed = OTHER; }
#pragma omp barrier
    weight_gradients(l, valid, packed.at, id, threads);
  }
  for (int64_t j = 0; j < own; j++) {
    double sum = 0;
    for (int64_t part = 0; part < l.threads; part++) sum += own_parts[part * own + j];
    l.own_gradient[j] = R(sum);
  }
  return failed;
} catch (const std::bad_alloc&) { return NO_MEMORY; } catch (...) { return OTHER; }
