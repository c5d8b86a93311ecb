"""What Transformers' model tests need to know of ours. run.py copies this file beside them."""

import unittest

import torch
from transformers.models.auto import modeling_auto
from transformers.testing_utils import require_torch, torch_device

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, CmlmModel

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin

# The mixin decides by these tables of class names which classes take labels, and of which shape.
modeling_auto.MODEL_MAPPING_NAMES["cmlm"] = "CmlmModel"
modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES["cmlm"] = "CmlmForConditionalGeneration"

FIRST_PLAIN_TOKEN = 6


class CmlmModelTester:
    """A tiny model and a batch for it, under the names that the mixin reads."""

    def __init__(self, parent):
        self.parent = parent
        # The mixin pads a batch's first rows with ones; one row must stay that is not padding.
        self.batch_size = 13
        self.seq_length = 7
        # The encoder puts the length vector in front of the source.
        self.encoder_seq_length = self.seq_length + 1
        self.vocab_size = 99
        self.hidden_size = 16
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.is_training = True

    def get_config(self):
        return CmlmConfig(
            vocab_size=self.vocab_size,
            d_model=self.hidden_size,
            encoder_layers=self.num_hidden_layers,
            decoder_layers=self.num_hidden_layers,
            encoder_attention_heads=self.num_attention_heads,
            decoder_attention_heads=self.num_attention_heads,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_source_length=40,
            max_target_length=40,
            dropout=0.1,
            # The mixin draws labels from 3 on, and a label may not be the blank.
            blank_token_id=2,
        )

    def prepare_config_and_inputs_for_common(self):
        # No padding in the ids: where a row is masked is the mixin's own business.
        shape = (self.batch_size, self.seq_length)
        input_ids, decoder_input_ids = torch.randint(
            FIRST_PLAIN_TOKEN, self.vocab_size, (2, *shape), device=torch_device
        )
        ones = torch.ones(shape, dtype=torch.long, device=torch_device)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": ones,
            "decoder_input_ids": decoder_input_ids,
            "decoder_attention_mask": ones.clone(),
        }
        return self.get_config(), inputs


@require_torch
class CmlmModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (CmlmModel, CmlmForConditionalGeneration)
    # Their generation tests are about autoregressive decoding.
    all_generative_model_classes = ()
    is_encoder_decoder = True

    def setUp(self):
        self.model_tester = CmlmModelTester(self)
        self.config_tester = ConfigTester(self, config_class=CmlmConfig, d_model=16)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """The mixin's labels are zeros, hence `<pad>`, which is refused."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if "labels" in inputs:
            inputs["labels"] = torch.full_like(inputs["labels"], FIRST_PLAIN_TOKEN)
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_attention_outputs(self):
        """The one replaced test, for two reasons: Transformers' counts the outputs and knows of no
        `length_logits`; and it takes the keys of the encoder and those that the decoder reads for
        the same, while the length vector is seen by the encoder only.
        """
        tester = self.model_tester
        source, canvas = tester.seq_length, tester.seq_length
        expected = {
            "encoder_attentions": [tester.num_attention_heads, source + 1, source + 1],
            "decoder_attentions": [tester.num_attention_heads, canvas, canvas],
            "cross_attentions": [tester.num_attention_heads, canvas, source],
        }
        for model_class in self.all_model_classes:
            for by_config in (False, True):
                config, inputs = tester.prepare_config_and_inputs_for_common()
                config._attn_implementation = "eager"
                if by_config:
                    config.output_attentions = config.output_hidden_states = True
                else:
                    inputs.update(output_attentions=True, output_hidden_states=True)
                model = model_class(config).to(torch_device).eval()
                with torch.no_grad():
                    outputs = model(**inputs)
                for name, shape in expected.items():
                    self.assertEqual(len(outputs[name]), tester.num_hidden_layers)
                    for weights in outputs[name]:
                        self.assertListEqual(list(weights.shape[-3:]), shape)
                        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
                self.assertEqual(
                    len(outputs.encoder_hidden_states), len(outputs.decoder_hidden_states)
                )
